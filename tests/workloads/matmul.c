// Products of matrices of doubles: one at a time, and two at a time by SSE2.
#include "bench.h"

#include <emmintrin.h>
#include <string.h>

enum { N = 64 };

static double a[N][N], b[N][N], c[N][N] __attribute__((aligned(16)));

static void prepare(void) {
    uint32_t state = 13;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = next_random(&state) / 4294967296.0;
            b[i][j] = next_random(&state) / 4294967296.0 - 0.5;
        }
}

static void multiply_scalar(void) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < N; k++)
                sum += a[i][k] * b[k][j];
            c[i][j] = sum;
        }
}

// Eight columns at a time, in four registers.
static void multiply_packed(void) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j += 8) {
            __m128d s0 = _mm_setzero_pd(), s1 = s0, s2 = s0, s3 = s0;
            for (int k = 0; k < N; k++) {
                __m128d factor = _mm_set1_pd(a[i][k]);
                s0 = _mm_add_pd(s0, _mm_mul_pd(factor, _mm_loadu_pd(&b[k][j])));
                s1 = _mm_add_pd(s1, _mm_mul_pd(factor, _mm_loadu_pd(&b[k][j + 2])));
                s2 = _mm_add_pd(s2, _mm_mul_pd(factor, _mm_loadu_pd(&b[k][j + 4])));
                s3 = _mm_add_pd(s3, _mm_mul_pd(factor, _mm_loadu_pd(&b[k][j + 6])));
            }
            _mm_store_pd(&c[i][j], s0);
            _mm_store_pd(&c[i][j + 2], s1);
            _mm_store_pd(&c[i][j + 4], s2);
            _mm_store_pd(&c[i][j + 6], s3);
        }
}

// Each product changes the next one's input, so that none can be left out.
static uint64_t repeat(uint64_t count, void (*multiply)(void)) {
    uint64_t sum = 0, bits;
    while (count--) {
        multiply();
        memcpy(&bits, &c[count % N][count / N % N], sizeof bits);
        sum = mix(sum, bits);
        a[count % N][0] = c[0][count % N] / N;
    }
    return sum;
}

static uint64_t run_scalar(uint64_t count) {
    return repeat(count, multiply_scalar);
}

static uint64_t run_packed(uint64_t count) {
    return repeat(count, multiply_packed);
}

WORKLOAD(scalar, "matmul-scalar", prepare, run_scalar);
WORKLOAD(packed, "matmul-packed", prepare, run_packed);
