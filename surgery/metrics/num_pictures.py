"""How many pictures numbers need to be numbers, and to be more than their bias."""

NUM_NEIGHBOURS = 3  # of precision and recall, as the paper; each picture needs as many others
MIN_JACKKNIFE = 40  # for twenty groups
RELIABLE_NUM = 2048  # below it FID is mostly its bias, which falls as 1 / N
