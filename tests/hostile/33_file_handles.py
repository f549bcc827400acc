# CAP_DAC_READ_SEARCH is asked for before the arguments are looked at.
from trial import call
outcome = call(304, -100, 0, 0)
print('refused' if outcome == 'EPERM' else 'permitted')
