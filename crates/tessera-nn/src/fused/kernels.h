// The loops over memory.
//
// Group norm takes values of one sample, or of a piece of one, as one strip. Its coefficients come round every `period` values where channels are last in memory: a
// strip is then some positions with all of their channels, and the period a multiple of the channels, and of `lanes`,
// so that every load of coefficients is whole. A period of 0 stands for a strip of one channel, with one coefficient.
// kernels.cpp is compiled once for each instruction set, and nothing of the standard library is in it: what linkers
// merge must not hold instructions that a machine lacks.

#pragma once

#include <cstdint>

namespace tessera {

struct bfloat16 {
  uint16_t bits;
};

// T is what memory holds, A what is computed in.
template <typename T, typename A>
struct Kernels {
  // Values of A in a vector.
  int64_t lanes;

  // Adds (x - shift) and its square to the sums of each place of the period, or to the one sum.
  void (*moments)(const T* x, int64_t len, int64_t period, const A* shift, double* sums, double* squares);

  // y = f(x * scale + shift), where f is SiLU or nothing.
  void (*apply)(const T* x, T* y, int64_t len, int64_t period, const A* scale, const A* shift, bool is_silu);

  // With h = x * inverse + offset, z = h * weight + bias and dz = dy f'(z): adds dz and dz * h to the sums, as
  // above, and leaves dz in `kept` unless that is null.
  void (*slopes)(const T* x, const T* dy, int64_t len, int64_t period, const A* inverse, const A* offset,
                 const A* weight, const A* bias, double* sums, double* products, A* kept, bool is_silu);

  // With z = x * scale + shift and dz = dy f'(z): dx = dz * scale + x * slope + level.
  void (*gradient)(const T* x, const T* dy, T* dx, int64_t len, int64_t period, const A* scale, const A* shift,
                   const A* slope, const A* level, bool is_silu);

  // Rows of `width` values each. y = x * inverse * weight, with inverse = 1 / sqrt(mean of squares + eps).
  void (*rms)(const T* x, const A* weight, int64_t rows, int64_t width, A eps, T* y, A* inverses);

  // The gradient at x, and at the weight added to `sums`, of `width`.
  void (*rms_gradient)(const T* x, const T* dy, const A* weight, const A* inverses, int64_t rows, int64_t width, T* dx,
                       A* sums);

  // y = silu(a) * b, where each row of `within` is a and then b, of `width` values each.
  void (*swiglu)(const T* within, int64_t rows, int64_t width, T* y);
  void (*swiglu_gradient)(const T* within, const T* dy, int64_t rows, int64_t width, T* at_within);

  // y = v * scale where the byte is not below `dropped`, else 0; and that added to x, unless x is null.
  void (*keep)(const T* x, const T* v, const uint8_t* bytes, int64_t len, uint8_t dropped, A scale, T* y);
};

// What AdamW computes with in a step: see adamw.cpp.
template <typename A>
struct AdamW {
  A decay, rate1, rate2, divisor, epsilon, rate;
};

template <typename A>
using AdamWStep = void (*)(A* x, const A* gradient, const A* decayed, A* average, A* square, int64_t len,
                           const AdamW<A>& by);

// Finds the largest of `width` scores less `halves` of each row, and where it is above `best`, leaves it there, and its
// place, counted from `first`, in `indices`. The first of those that are the same counts.
template <typename A>
using Best = void (*)(const A* scores, const A* halves, int64_t rows, int64_t width, int64_t first, A* best,
                      int64_t* indices);

// The kernels of one instruction set.
struct Set {
  Kernels<float, float> of_float;
  Kernels<double, double> of_double;
  Kernels<bfloat16, float> of_bfloat16;
  AdamWStep<float> adamw_of_float;
  AdamWStep<double> adamw_of_double;
  Best<float> best_of_float;
  Best<double> best_of_double;
};

extern const Set baseline;
#ifdef TESSERA_X86
extern const Set avx2;
extern const Set avx512;
#endif

}  // namespace tessera
