// Vectors as wide as the instruction set that kernels.cpp is compiled for has them, and SiLU of them.

#pragma once

#include "kernels.h"

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif

namespace tessera {
namespace {

// A vector of `lanes` values of A, and how memory of another type becomes one.
template <typename A>
struct Vector;

template <>
struct Vector<float> {
  static constexpr int64_t lanes = WIDTH / 4;
  typedef float V __attribute__((vector_size(WIDTH)));
  typedef double D __attribute__((vector_size(WIDTH * 2)));
  typedef uint32_t U __attribute__((vector_size(WIDTH)));
  typedef uint16_t H __attribute__((vector_size(WIDTH / 2)));
  typedef uint8_t B __attribute__((vector_size(WIDTH / 4)));

  static inline V load(const float* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }

  static inline void store(V v, float* to) { __builtin_memcpy(to, &v, sizeof v); }

  static inline V load(const bfloat16* from) {
    H h;
    __builtin_memcpy(&h, from, sizeof h);
    return (V)(__builtin_convertvector(h, U) << 16);
  }

  // Rounds to the nearest, ties to even; a NaN stays one.
  static inline void store(V v, bfloat16* to) {
    const U bits = (U)v;
    const U rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const U chosen = v == v ? rounded : U{} + 0x7fc0;
    const H h = __builtin_convertvector(chosen, H);
    __builtin_memcpy(to, &h, sizeof h);
  }

  // exp(x), off by 1 in the last place or so where it is a normal number; bounded outside of that. r = x - n ln 2 with
  // ln 2 in two parts, exp(r) by the polynomial of Cephes' expf, 2^n by its exponent.
  static inline V exp(V x) {
    constexpr float magic = 0x1.8p23f;
    const V least = V{} - 87.0f, most = V{} + 88.0f;
    x = x < least ? least : x;
    x = x > most ? most : x;
    const V shifted = x * 1.44269504f + magic;
    const V n = shifted - magic;
    const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * (V)(((U)shifted << 23) + (127u << 23));
  }
};

template <>
struct Vector<double> {
  static constexpr int64_t lanes = WIDTH / 8;
  typedef double V __attribute__((vector_size(WIDTH)));
  typedef V D;
  typedef uint64_t U __attribute__((vector_size(WIDTH)));
  typedef uint8_t B __attribute__((vector_size(WIDTH / 8)));

  static inline V load(const double* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }

  static inline void store(V v, double* to) { __builtin_memcpy(to, &v, sizeof v); }

  static inline V exp(V x) {
    for (int64_t lane = 0; lane < lanes; ++lane) x[lane] = __builtin_exp(x[lane]);
    return x;
  }
};

template <typename A>
using V = typename Vector<A>::V;

inline float root(float number) { return __builtin_sqrtf(number); }
inline double root(double number) { return __builtin_sqrt(number); }

template <typename A>
inline V<A> roots(V<A> v) {
  A numbers[Vector<A>::lanes];
  __builtin_memcpy(numbers, &v, sizeof v);
  for (A& number : numbers) number = root(number);
  __builtin_memcpy(&v, numbers, sizeof v);
  return v;
}

// The first `count` of a vector's values; the rest come as zeros.
template <typename T, typename A>
inline V<A> load_part(const T* from, int64_t count) {
  T buffer[Vector<A>::lanes] = {};
  for (int64_t lane = 0; lane < count; ++lane) buffer[lane] = from[lane];
  return Vector<A>::load(buffer);
}

template <typename T, typename A>
inline void store_part(V<A> v, T* to, int64_t count) {
  T buffer[Vector<A>::lanes];
  Vector<A>::store(v, buffer);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = buffer[lane];
}

template <typename A, bool is_silu>
inline V<A> activate(V<A> z) {
  if constexpr (is_silu) return z / (Vector<A>::exp(-z) + A(1));
  return z;
}

// dy f'(z); with s = 1 / (1 + e), where e = exp(-z), f'(z) = s (1 + z (1 - s)), and 1 - s = e s.
template <typename A, bool is_silu>
inline V<A> through(V<A> z, V<A> dy) {
  if constexpr (is_silu) {
    const V<A> e = Vector<A>::exp(-z);
    const V<A> s = A(1) / (e + A(1));
    return dy * (s * (z * (e * s) + A(1)));
  }
  return dy;
}

}  // namespace
}  // namespace tessera
