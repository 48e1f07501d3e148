"""How many pictures numbers need to be numbers, and to be more than their bias."""

NUM_NEIGHBOURS = 3  # of precision and recall, as the paper; each picture needs as many others
MIN_JACKKNIFE = 40  # for twenty groups
RELIABLE_NUM = 2048  # below it FID is mostly its bias, which falls as 1 / N
RELIABLE_SETS = 64  # of KID, precision and recall: below it chance prefers a broken model (3% of 136 tries with 32
# pictures beside 512 real ones, 12% of 300 with 16, 38% of 300 with 4; none of 110 with 64), and recall still grows
