"""Every bound of the language, in one place: whatever in a spec can grow has one, far beyond what anybody means.

Each is told by a fault where a spec exceeds it. What takes time to plan grows with these numbers and a model's layers.
"""

MAX_BYTES = 100_000  # of a file
MAX_VALUES = 5_000  # as written, again after aliases are expanded, and again once variables and cases are filled in
MAX_DEPTH = 40  # of lists and mappings within each other
MAX_PARTS = 5_000  # indices and ranges that a group stands for, and that all operations select with, groups expanded
MAX_INDEX = 100_000  # of a layer
MAX_TIMES = 1_000  # of `times` and `loops`
MAX_EXECUTIONS = 100_000  # layers in one forward, all times and loops multiplied: before numbers stop being sane
MAX_INTEGER = 2**63 - 1  # of a seed, and of whatever has no smaller bound
MAX_REAL = 1e30  # of a factor
MAX_NUMBER = 10**9  # in the arithmetic of `vary`, every step of it
MAX_TEXT = 10_000  # characters of a text once its variables are filled in
MAX_WINDOWS = 200  # parts of one `steps`, and atoms of a plan: what its windows cut a trajectory and its branches into
MAX_VALUES_A_VARIABLE = 10_000
MAX_VARIANTS = 10_000  # of a sweep
MAX_SWEPT_OPERATIONS = 100_000  # operations of all variants of a sweep together, what adds up counted each time
