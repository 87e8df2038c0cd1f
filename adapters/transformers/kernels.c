/* What lies between a model's products, in bfloat16; kernels.py compiles it and says what each function takes.

   All numbers are computed in float32 and rounded once. Sizes are counted in numbers, not in bytes. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

typedef uint16_t bf16;

#define CHUNK 256        /* tokens whose scores are held at a time */
#define WORTH_SHARING (1 << 16) /* numbers, from which on a second thread is of use */

static inline float widened(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline bf16 narrowed(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? (bf16)(bits >> 16 | 0x40) : (bf16)rounded; /* NaN stays NaN */
}

/* e^x as 2^n e^r with |r| <= ln 2 / 2 and six terms of the series of e^r; 2^-126 times e^r below it. */
static inline float exponential(float x) {
    float n = floorf(x * 1.44269504f + 0.5f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
    float series = 1 + r * (1 + r * (1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    int32_t exponent = (int32_t)n;
    exponent = exponent < -126 ? -126 : exponent;
    exponent = exponent > 127 ? 127 : exponent;
    uint32_t power = (uint32_t)(exponent + 127) << 23;
    float scale;
    memcpy(&scale, &power, sizeof scale);
    return series * scale;
}

/* RMS norm of `heads` vectors of `size` numbers in each token; a token's begin `in_stride` after the last one's. */
void normalize(const bf16 *in, int64_t in_stride, const bf16 *weight, float eps, int64_t tokens, int64_t heads,
               int64_t size, bf16 *out, int64_t out_stride, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && tokens * heads * size > WORTH_SHARING)
    for (int64_t token = 0; token < tokens; token++)
        for (int64_t head = 0; head < heads; head++) {
            const bf16 *x = in + token * in_stride + head * size;
            bf16 *y = out + token * out_stride + head * size;
            float sum = 0;
            for (int64_t i = 0; i < size; i++)
                sum += widened(x[i]) * widened(x[i]);
            float scale = 1 / sqrtf(sum / size + eps);
            for (int64_t i = 0; i < size; i++)
                y[i] = narrowed(widened(x[i]) * scale * widened(weight[i]));
        }
}

/* Turn the first `heads` vectors of each token, in place: `cos` and `sin` are [tokens, size], the first half of `sin`
   with its sign changed. */
void rotate(bf16 *states, int64_t stride, const bf16 *cos, const bf16 *sin, int64_t tokens, int64_t heads, int64_t size,
            int threads) {
    int64_t half = size / 2;
#pragma omp parallel for num_threads(threads) if (threads > 1 && tokens * heads * size > WORTH_SHARING)
    for (int64_t token = 0; token < tokens; token++)
        for (int64_t head = 0; head < heads; head++) {
            bf16 *x = states + token * stride + head * size, *y = x + half;
            const bf16 *c = cos + token * size, *s = sin + token * size;
            for (int64_t i = 0; i < half; i++) {
                float a = widened(x[i]), b = widened(y[i]);
                x[i] = narrowed(a * widened(c[i]) + b * widened(s[i]));
                y[i] = narrowed(b * widened(c[i + half]) + a * widened(s[i + half]));
            }
        }
}

static void gate_token(const bf16 *restrict gate, const bf16 *restrict up, int64_t size, bf16 *restrict out) {
    for (int64_t i = 0; i < size; i++) {
        float g = widened(gate[i]);
        out[i] = narrowed(g / (1 + exponential(-g)) * widened(up[i]));
    }
}

/* silu(gate) * up, where a token's `size` gates are followed by as many ups. */
void gated(const bf16 *in, int64_t tokens, int64_t size, bf16 *out, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && tokens * size > WORTH_SHARING)
    for (int64_t token = 0; token < tokens; token++)
        gate_token(in + token * 2 * size, in + token * 2 * size + size, size, out + token * size);
}

/* One new token a row: its keys (or values), `heads` vectors of `size`, go to place `filled[row]` of its row in a
   layer's [rows, heads, length, size]. */
void keep(const bf16 *in, int64_t stride, const int64_t *filled, int64_t rows, int64_t heads, int64_t length,
          int64_t size, bf16 *kept) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t head = 0; head < heads; head++)
            memcpy(kept + ((row * heads + head) * length + filled[row]) * size, in + row * stride + head * size,
                   size * sizeof *in);
}

static inline __attribute__((always_inline)) float product(const bf16 *a, const bf16 *b, const int64_t size) {
#ifdef __AVX512BF16__
    if (size % 32 == 0) {
        __m512 sums = _mm512_setzero_ps();
        for (int64_t i = 0; i < size; i += 32)
            sums = _mm512_dpbf16_ps(sums, (__m512bh)_mm512_loadu_si512(a + i), (__m512bh)_mm512_loadu_si512(b + i));
        return _mm512_reduce_add_ps(sums);
    }
#endif
    float sum = 0;
    for (int64_t i = 0; i < size; i++)
        sum += widened(a[i]) * widened(b[i]);
    return sum;
}

/* Attention of `group` queries to the same keys and values; inlined for the usual sizes, whose loops then have a
   constant length. */
static inline __attribute__((always_inline)) void attend_one(const bf16 *query, const bf16 *keys, const bf16 *values,
                                                             int64_t count, int64_t group, const int64_t size,
                                                             float scaling, bf16 *out) {
    float sums[group * size], scores[group * CHUNK], highest[group], total[group];
    for (int64_t i = 0; i < group * size; i++)
        sums[i] = 0;
    for (int64_t g = 0; g < group; g++) {
        highest[g] = -INFINITY;
        total[g] = 0;
    }
    for (int64_t begin = 0; begin < count; begin += CHUNK) {
        int64_t length = count - begin < CHUNK ? count - begin : CHUNK;
        for (int64_t t = 0; t < length; t++)
            for (int64_t g = 0; g < group; g++)
                scores[g * CHUNK + t] = scaling * product(query + g * size, keys + (begin + t) * size, size);
        for (int64_t g = 0; g < group; g++) {
            float *score = scores + g * CHUNK, *sum = sums + g * size;
            float most = highest[g];
#pragma omp simd reduction(max : most)
            for (int64_t t = 0; t < length; t++)
                most = score[t] > most ? score[t] : most;
            float before = highest[g] == -INFINITY ? 0 : exponential(highest[g] - most);
            float all = 0;
            for (int64_t t = 0; t < length; t++)
                all += score[t] = exponential(score[t] - most);
            highest[g] = most;
            total[g] = total[g] * before + all;
            for (int64_t i = 0; i < size; i++)
                sum[i] *= before;
            int64_t t = 0;
            for (; t + 4 <= length; t += 4) {
                const bf16 *v = values + (begin + t) * size;
                for (int64_t i = 0; i < size; i++)
                    sum[i] += score[t] * widened(v[i]) + score[t + 1] * widened(v[i + size]) +
                              score[t + 2] * widened(v[i + 2 * size]) + score[t + 3] * widened(v[i + 3 * size]);
            }
            for (; t < length; t++)
                for (int64_t i = 0; i < size; i++)
                    sum[i] += score[t] * widened(values[(begin + t) * size + i]);
        }
    }
    for (int64_t g = 0; g < group; g++)
        for (int64_t i = 0; i < size; i++)
            out[g * size + i] = narrowed(sums[g * size + i] / total[g]);
}

/* One token a row attends to its row's first `filled[row] + 1` ones, or to the last `window` of them (0: to all).
   `queries` is [rows, heads * size] with a stride, `keys` and `values` [rows, kv heads, length, size], `out`
   [rows, heads * size]. */
void attend(const bf16 *queries, int64_t stride, const bf16 *keys, const bf16 *values, const int64_t *filled,
            int64_t rows, int64_t heads, int64_t kv_heads, int64_t length, int64_t size, int64_t window, float scaling,
            bf16 *out, int threads) {
    int64_t group = heads / kv_heads;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
    for (int64_t task = 0; task < rows * kv_heads; task++) {
        int64_t row = task / kv_heads, first = 0, count = filled[row] + 1;
        if (window > 0 && count > window) {
            first = count - window;
            count = window;
        }
        const bf16 *query = queries + row * stride + (task % kv_heads) * group * size;
        const bf16 *key = keys + (task * length + first) * size, *value = values + (task * length + first) * size;
        bf16 *mine = out + task * group * size;
        switch (size) {
        case 64:
            attend_one(query, key, value, count, group, 64, scaling, mine);
            break;
        case 128:
            attend_one(query, key, value, count, group, 128, scaling, mine);
            break;
        default:
            attend_one(query, key, value, count, group, size, scaling, mine);
        }
    }
}
