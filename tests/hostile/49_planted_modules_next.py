import sys
print('evil' if hasattr(sys, 'evil') else 'clean', sorted(sys.path)[0][-1:] != '', sep=' ')
