// Scalar double arithmetic in SSE2.
#include "nbody.h"

WORKLOAD(nbody, "nbody", nothing_to_prepare, run);
