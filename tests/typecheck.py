"""The run-time type checker of the tests: beartype, to which a whole number is a float, as PEP 484 says.

It looks at a random item of a list, and draws it from Python's global generator. Here it has one of its own, or a run
under test would draw other numbers than the same run without the checks.
"""

import random

from beartype import BeartypeConf, beartype
from beartype._check.code import codemain

assert codemain.getrandbits == random.getrandbits, "beartype draws elsewhere now"
codemain.getrandbits = random.Random(0).getrandbits

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
