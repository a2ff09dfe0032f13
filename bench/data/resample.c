/* The CPU's kernel of bench/data/resample.py, which defines what is computed and holds the same in torch.

   Interpolation is in integers; the few float operations after it are each rounded as IEEE 754 says and compiled without contraction. So
   the results equal torch's to the bit. A pixel of image and normals has three channels; where its neighbours lie inside, a row of four is
   read as 16 bytes: a flat array must go on for 4 bytes after its last pixel.

   Coordinates are signed 32.32 fixed point in pixels of the stored sample, at the centre of output pixel (i, j): x0 + i xi + j xj. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define FRACTION 32 /* bits of a coordinate's fraction */
#define STEPS 10    /* bits of the fraction that choose the weights */
#define ROW_BITS 5  /* fraction that a sum over a column keeps */
#define SUM_BITS 15 /* fraction of an interpolated value */
#define VECTOR_BITS 11 /* of which normals drop so many */
#define AGREE 256   /* least product of an interpolated normal with its nearest pixel's */
#define IGNORED 255
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    int64_t first, width, height, xj, xi, x0, yj, yi, y0;
} Sample;

typedef struct {
    const Sample *samples;
    int64_t count, height, width; /* of the batch */
    const int16_t *weights;       /* (1024, 4) */
    const uint8_t *image;
    const float *scale, *shift; /* of the image's channels */
    float *image_out;
    const int8_t *normals; /* or NULL */
    const float *turns;    /* (count, 5) */
    float *normals_out;
    int64_t byte_maps, float_maps;
    const uint8_t **bytes;
    uint8_t **bytes_out;
    const float **floats;
    float **floats_out;
    int32_t *work; /* 9 width */
} Batch;

/* Where the pixels of a line lie: nearest pixel (-1 outside), first of sixteen neighbours (row and column may be outside), weights. */
typedef struct {
    int32_t *nearest, *left, *top, *across, *down;
} Line;

INLINE int64_t clamped(int64_t value, int64_t top) { return value < 0 ? 0 : value > top ? top : value; }

static void locate(const Batch *b, const Sample *s, int64_t i, Line line) {
    const int64_t half = 1LL << (FRACTION - 1), step = 1LL << (FRACTION - STEPS - 1), mask = (1 << STEPS) - 1;
    const int64_t x0 = s->x0 + i * s->xi, y0 = s->y0 + i * s->yi;
    for (int64_t j = 0; j < b->width; j++) {
        int64_t x = x0 + j * s->xj, y = y0 + j * s->yj;
        int32_t column = (int32_t)((x + half) >> FRACTION), row = (int32_t)((y + half) >> FRACTION);
        int inside = column >= 0 && row >= 0 && column < s->width && row < s->height;
        line.nearest[j] = inside ? row * (int32_t)s->width + column : -1;
        line.left[j] = (int32_t)((x + step) >> FRACTION) - 1;
        line.top[j] = (int32_t)((y + step) >> FRACTION) - 1;
        line.across[j] = (int32_t)(((x + step) >> (FRACTION - STEPS)) & mask);
        line.down[j] = (int32_t)(((y + step) >> (FRACTION - STEPS)) & mask);
    }
}

/* Weigh four rows of four pixels, each row 12 bytes at its pointer; gives three sums and one that does not count, times 2^15. */
#ifdef __AVX2__
INLINE __m256i widened(__m128i bytes, int is_signed) { return is_signed ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes); }

INLINE void weigh(const uint8_t *a, const uint8_t *b, const uint8_t *c, const uint8_t *d, const int16_t *down, const int16_t *across,
                  int is_signed, int32_t out[4]) {
    const __m128i pairs = _mm_setr_epi8(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, 4, 5, 10, 11);
    int32_t down_ab, down_cd, across_ab, across_cd;
    memcpy(&down_ab, down, 4), memcpy(&down_cd, down + 2, 4), memcpy(&across_ab, across, 4), memcpy(&across_cd, across + 2, 4);
    __m128i row_a = _mm_loadu_si128((const __m128i *)a), row_b = _mm_loadu_si128((const __m128i *)b);
    __m128i row_c = _mm_loadu_si128((const __m128i *)c), row_d = _mm_loadu_si128((const __m128i *)d);
    __m256i weight_ab = _mm256_set1_epi32(down_ab), weight_cd = _mm256_set1_epi32(down_cd), round = _mm256_set1_epi32(1 << (ROW_BITS - 1));
    /* entries 0..7 (pixels 0, 1 and part of 2), then 8..11, each as 32 bits */
    __m256i low = _mm256_madd_epi16(widened(_mm_unpacklo_epi8(row_a, row_b), is_signed), weight_ab);
    low = _mm256_add_epi32(low, _mm256_madd_epi16(widened(_mm_unpacklo_epi8(row_c, row_d), is_signed), weight_cd));
    low = _mm256_srai_epi32(_mm256_add_epi32(low, round), ROW_BITS);
    __m128i ends_ab = _mm256_castsi256_si128(widened(_mm_unpackhi_epi8(row_a, row_b), is_signed));
    __m128i ends_cd = _mm256_castsi256_si128(widened(_mm_unpackhi_epi8(row_c, row_d), is_signed));
    __m128i high = _mm_madd_epi16(ends_ab, _mm256_castsi256_si128(weight_ab));
    high = _mm_add_epi32(high, _mm_madd_epi16(ends_cd, _mm256_castsi256_si128(weight_cd)));
    high = _mm_srai_epi32(_mm_add_epi32(high, _mm256_castsi256_si128(round)), ROW_BITS);
    /* as 16 bits: entries 0..7, and 6..11 with two more */
    __m128i first = _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    __m128i last = _mm_alignr_epi8(_mm_packs_epi32(high, high), first, 12);
    __m128i sum = _mm_madd_epi16(_mm_shuffle_epi8(first, pairs), _mm_set1_epi32(across_ab));
    sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_shuffle_epi8(last, pairs), _mm_set1_epi32(across_cd)));
    _mm_storeu_si128((__m128i *)out, sum);
}
#else
INLINE void weigh(const uint8_t *a, const uint8_t *b, const uint8_t *c, const uint8_t *d, const int16_t *down, const int16_t *across,
                  int is_signed, int32_t out[4]) {
    int32_t column[12];
    for (int k = 0; k < 12; k++) {
        int32_t sum;
        if (is_signed)
            sum = down[0] * (int8_t)a[k] + down[1] * (int8_t)b[k] + down[2] * (int8_t)c[k] + down[3] * (int8_t)d[k];
        else
            sum = down[0] * a[k] + down[1] * b[k] + down[2] * c[k] + down[3] * d[k];
        column[k] = (sum + (1 << (ROW_BITS - 1))) >> ROW_BITS;
    }
    for (int k = 0; k < 3; k++)
        out[k] = across[0] * column[k] + across[1] * column[k + 3] + across[2] * column[k + 6] + across[3] * column[k + 9];
    out[3] = 0;
}
#endif

/* Interpolate cubically at pixel j of a line; neighbours outside repeat the border. */
INLINE void cubic(const uint8_t *pixels, const Sample *s, Line line, int64_t j, const int16_t *weights, int is_signed, int32_t out[4]) {
    const int64_t left = line.left[j], top = line.top[j], stride = 3 * s->width;
    const int16_t *down = weights + 4 * line.down[j], *across = weights + 4 * line.across[j];
    if (left >= 0 && top >= 0 && left + 3 < s->width && top + 3 < s->height) {
        const uint8_t *at = pixels + top * stride + 3 * left;
        weigh(at, at + stride, at + 2 * stride, at + 3 * stride, down, across, is_signed, out);
        return;
    }
    uint8_t patch[4][16];
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 4; c++)
            memcpy(patch[r] + 3 * c, pixels + clamped(top + r, s->height - 1) * stride + 3 * clamped(left + c, s->width - 1), 3);
    weigh(patch[0], patch[1], patch[2], patch[3], down, across, is_signed, out);
}

static void image_line(const Batch *b, const Sample *s, Line line, int32_t *values, float *out, int64_t plane) {
    const uint8_t *pixels = b->image + 3 * s->first;
    for (int64_t j = 0; j < b->width; j++) {
        if (line.nearest[j] >= 0)
            cubic(pixels, s, line, j, b->weights, 0, values + 4 * j);
        else
            memset(values + 4 * j, 0, 16);
    }
    for (int c = 0; c < 3; c++) {
        const float scale = b->scale[c], shift = b->shift[c];
        float *restrict channel = out + c * plane;
        for (int64_t j = 0; j < b->width; j++) {
            float value = (float)values[4 * j + c] * (1.0f / (1 << SUM_BITS));
            value = value < 0 ? 0 : value > 255 ? 255 : value;
            value = value * scale;
            channel[j] = value + shift;
        }
    }
}

static void normals_line(const Batch *b, const Sample *s, Line line, int32_t *values, const float *turn, float *out, int64_t plane) {
    const int8_t *pixels = b->normals + 3 * s->first;
    for (int64_t j = 0; j < b->width; j++) {
        const int8_t *own = pixels + 3 * line.nearest[j];
        int32_t *v = values + 4 * j;
        if (line.nearest[j] < 0 || !(own[0] | own[1] | own[2])) {
            memset(v, 0, 16);
            continue;
        }
        cubic((const uint8_t *)pixels, s, line, j, b->weights, 1, v);
        for (int c = 0; c < 3; c++) v[c] = (v[c] + (1 << (VECTOR_BITS - 1))) >> VECTOR_BITS;
        v[3] = v[0] * own[0] + v[1] * own[1] + v[2] * own[2];
    }
    float *restrict x = out, *restrict y = out + plane, *restrict z = out + 2 * plane;
    const float xx = turn[0], xy = turn[1], yx = turn[2], yy = turn[3];
    for (int64_t j = 0; j < b->width; j++) {
        const int32_t *v = values + 4 * j;
        int32_t square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
        float a = (float)v[0], c = (float)v[1], d = (float)v[2], factor = 1 / sqrtf((float)(square < 1 ? 1 : square));
        int counts = v[3] > AGREE;
        float turned_x = xx * a + xy * c, turned_y = yx * a + yy * c;
        x[j] = counts ? turned_x * factor : IGNORED;
        y[j] = counts ? turned_y * factor : IGNORED;
        z[j] = counts ? d * factor : IGNORED;
    }
}

void resample(const Batch *b) {
    const int64_t w = b->width, plane = b->height * w;
    const Line line = {b->work, b->work + w, b->work + 2 * w, b->work + 3 * w, b->work + 4 * w};
    int32_t *values = b->work + 5 * w;
    for (int64_t n = 0; n < b->count; n++) {
        const Sample *s = b->samples + n;
        for (int64_t i = 0; i < b->height; i++) {
            const int64_t at = n * plane + i * w, at_three = 3 * n * plane + i * w;
            locate(b, s, i, line);
            image_line(b, s, line, values, b->image_out + at_three, plane);
            if (b->normals) normals_line(b, s, line, values, b->turns + 5 * n, b->normals_out + at_three, plane);
            for (int64_t m = 0; m < b->byte_maps; m++) {
                const uint8_t *map = b->bytes[m] + s->first;
                uint8_t *restrict out = b->bytes_out[m] + at;
                for (int64_t j = 0; j < w; j++) out[j] = line.nearest[j] < 0 ? IGNORED : map[line.nearest[j]];
            }
            for (int64_t m = 0; m < b->float_maps; m++) {
                const float *map = b->floats[m] + s->first;
                float *restrict out = b->floats_out[m] + at;
                for (int64_t j = 0; j < w; j++) out[j] = line.nearest[j] < 0 ? 0 : map[line.nearest[j]] * b->turns[5 * n + 4];
            }
        }
    }
}
