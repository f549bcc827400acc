def _limit_memory(most):
    import resource
    import sys

    if not most:
        return
    kinds = ["RLIMIT_AS", "RLIMIT_DATA"]
    if sys.platform != "darwin":
        kinds.append("RLIMIT_STACK")
    for kind in (getattr(resource, kind) for kind in kinds):
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
