"""The rows that every table of an evaluation has beside the variants. Imports nothing."""

BASELINE = "baseline"
NO_OP = "no-op"  # the graph of a spec without operations: what compiling alone does
RESEEDED = "reseeded"  # the baseline from other noise: how far apart two good pictures of a prompt are
NOISE = "noise"  # independent uniform pixels
CONTROLS = (NO_OP, RESEEDED, NOISE)
AVERAGE = "average"  # the kind of a row that is the mean of several variants
