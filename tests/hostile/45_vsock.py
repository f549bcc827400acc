from trial import call
outcome = call(41, 40, 1, 0)
print(outcome)
