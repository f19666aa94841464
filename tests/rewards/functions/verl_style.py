"""A file as written for verl, where only the text and the truth are asked for."""


def compute_score(solution_str, ground_truth, method="strict", format_score=0.1, score=1.0):
    assert method == "strict"
    return score if solution_str.strip() == ground_truth else format_score
