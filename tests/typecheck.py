"""The run-time type checker of the tests: beartype, to which a whole number is a float, as PEP 484 says."""

from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
