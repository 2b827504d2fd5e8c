// The same in x87.
#pragma GCC target("fpmath=387")
#include "nbody.h"

WORKLOAD(nbody_x87, "nbody-x87", nothing_to_prepare, run);
