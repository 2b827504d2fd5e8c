// The planets' orbits by Newton's law, one double at a time. Included by each file that
// compiles it for another unit of the processor.
#include "bench.h"

#include <string.h>

enum { BODIES = 5, STEPS = 100 };

struct body {
    double x[3], v[3], mass;
};

// Invented, of the solar system's orders of magnitude: AU, AU a year, solar masses.
static const struct body start[BODIES] = {
    {{0, 0, 0}, {0, 0, 0}, 1},
    {{4.8, -1.2, -0.1}, {0.6, 2.8, -0.02}, 9.5e-4},
    {{8.3, 4.1, -0.4}, {-1.0, 1.8, 0.01}, 2.8e-4},
    {{12.9, -15.1, -0.2}, {1.1, 0.9, -0.01}, 4.4e-5},
    {{15.4, -25.9, 0.2}, {1.0, 0.6, -0.03}, 5.1e-5},
};

static void advance(struct body *bodies, double step) {
    for (int i = 0; i < BODIES; i++) {
        struct body *a = &bodies[i];
        for (int j = i + 1; j < BODIES; j++) {
            struct body *b = &bodies[j];
            double dx = a->x[0] - b->x[0], dy = a->x[1] - b->x[1], dz = a->x[2] - b->x[2];
            double square = dx * dx + dy * dy + dz * dz;
            double pull = step / (square * __builtin_sqrt(square));
            a->v[0] -= dx * b->mass * pull;
            a->v[1] -= dy * b->mass * pull;
            a->v[2] -= dz * b->mass * pull;
            b->v[0] += dx * a->mass * pull;
            b->v[1] += dy * a->mass * pull;
            b->v[2] += dz * a->mass * pull;
        }
    }
    for (int i = 0; i < BODIES; i++)
        for (int axis = 0; axis < 3; axis++)
            bodies[i].x[axis] += step * bodies[i].v[axis];
}

static uint64_t run(uint64_t count) {
    struct body bodies[BODIES];
    memcpy(bodies, start, sizeof bodies);
    for (uint64_t step = 0; step < count * STEPS; step++)
        advance(bodies, 0.001);
    uint64_t sum = 0, bits;
    for (int i = 0; i < BODIES; i++) {
        memcpy(&bits, &bodies[i].x[0], sizeof bits);
        sum = mix(sum, bits);
    }
    return sum;
}
