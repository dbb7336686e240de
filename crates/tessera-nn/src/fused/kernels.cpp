// See kernels.h. TESSERA_SET names the instruction set that this is compiled for.

#include "rows.h"

namespace tessera {
namespace {

// Sums are kept in A for so many periods, then in double.
constexpr int64_t BLOCK = 64;

// Coefficients of a strip, repeated over a period or the same everywhere.
template <typename A, bool is_tiled>
struct Coefficients {
  const A* from;
  V<A> one;

  explicit inline Coefficients(const A* from) : from(from), one(V<A>{} + *from) {}

  inline V<A> at(int64_t place) const {
    if constexpr (is_tiled) return Vector<A>::load(from + place);
    return one;
  }
};

// Sums of a strip, one for each place of a period or one for all.
template <typename A, bool is_tiled>
inline void add(double* sums, int64_t place, V<A> v) {
  typedef typename Vector<A>::D D;
  const D wide = __builtin_convertvector(v, D);
  if constexpr (is_tiled) {
    D sum;
    __builtin_memcpy(&sum, sums + place, sizeof sum);
    sum += wide;
    __builtin_memcpy(sums + place, &sum, sizeof sum);
  } else {
    for (int64_t lane = 0; lane < Vector<A>::lanes; ++lane) *sums += wide[lane];
  }
}

// Calls whole(value, place) for each vector of a strip, then part(value, place, count) for what is left over.
template <int64_t lanes, typename Whole, typename Part>
inline void each(int64_t len, int64_t period, const Whole& whole, const Part& part) {
  int64_t at = 0, place = 0;
  for (; at + period <= len; at += period) {
    for (place = 0; place < period; place += lanes) whole(at + place, place);
  }
  for (place = 0; at + lanes <= len; at += lanes, place += lanes) whole(at, place);
  if (at < len) part(at, place, len - at);
}

// Adds two values of each place to two sums: in A over BLOCK periods, for `WAYS` vectors at once, which hides the
// latency of additions. values(at, place, a, b) adds those of a vector to a and b, and part(at, place, count, a, b)
// those of what is left over.
template <typename A, bool is_tiled, int WAYS, typename Values, typename Part>
inline void reduce(int64_t len, int64_t period, double* first, double* second, const Values& values, const Part& part) {
  constexpr int64_t lanes = Vector<A>::lanes;
  const auto flush = [&](int64_t place, V<A> a, V<A> b) {
    add<A, is_tiled>(first, place, a);
    add<A, is_tiled>(second, place, b);
  };
  const int64_t whole = len / period;
  for (int64_t start = 0; start < whole; start += BLOCK) {
    const int64_t end = start + BLOCK < whole ? start + BLOCK : whole;
    int64_t place = 0;
    for (; place + WAYS * lanes <= period; place += WAYS * lanes) {
      V<A> a[WAYS] = {}, b[WAYS] = {};
      for (int64_t row = start; row < end; ++row) {
        for (int way = 0; way < WAYS; ++way) {
          const int64_t here = place + way * lanes;
          values(row * period + here, here, a[way], b[way]);
        }
      }
      for (int way = 0; way < WAYS; ++way) flush(place + way * lanes, a[way], b[way]);
    }
    for (; place < period; place += lanes) {
      V<A> a = {}, b = {};
      for (int64_t row = start; row < end; ++row) values(row * period + place, place, a, b);
      flush(place, a, b);
    }
  }
  int64_t at = whole * period, place = 0;
  for (; at + lanes <= len; at += lanes, place += lanes) {
    V<A> a = {}, b = {};
    values(at, place, a, b);
    flush(place, a, b);
  }
  if (at < len) {
    V<A> a = {}, b = {};
    part(at, place, len - at, a, b);
    flush(place, a, b);
  }
}

template <typename T, typename A, bool is_tiled>
void moments_by(const T* x, int64_t len, int64_t period, const A* shift, double* sums, double* squares) {
  const Coefficients<A, is_tiled> shifts(shift);
  const auto take = [&](V<A> v, V<A>& sum, V<A>& square) {
    sum += v;
    square += v * v;
  };
  reduce<A, is_tiled, 4>(
      len, period, sums, squares,
      [&](int64_t at, int64_t place, V<A>& sum, V<A>& square) {
        take(Vector<A>::load(x + at) - shifts.at(place), sum, square);
      },
      [&](int64_t at, int64_t place, int64_t count, V<A>& sum, V<A>& square) {
        A apart[Vector<A>::lanes];
        Vector<A>::store(load_part<T, A>(x + at, count) - shifts.at(place), apart);
        take(load_part<A, A>(apart, count), sum, square);
      });
}

template <typename T, typename A, bool is_tiled, bool is_silu>
void apply_by(const T* x, T* y, int64_t len, int64_t period, const A* scale, const A* shift) {
  const Coefficients<A, is_tiled> scales(scale), shifts(shift);
  const auto of = [&](V<A> v, int64_t place) {
    return activate<A, is_silu>(v * scales.at(place) + shifts.at(place));
  };
  each<Vector<A>::lanes>(
      len, period,
      [&](int64_t at, int64_t place) { Vector<A>::store(of(Vector<A>::load(x + at), place), y + at); },
      [&](int64_t at, int64_t place, int64_t count) {
        store_part<T, A>(of(load_part<T, A>(x + at, count), place), y + at, count);
      });
}

template <typename T, typename A, bool is_tiled, bool is_silu>
void slopes_by(const T* x, const T* dy, int64_t len, int64_t period, const A* inverse, const A* offset,
               const A* weight, const A* bias, double* sums, double* products, A* kept) {
  const Coefficients<A, is_tiled> inverses(inverse), offsets(offset), weights(weight), biases(bias);
  const auto take = [&](V<A> v, V<A> d, int64_t place, V<A>& sum, V<A>& product) {
    const V<A> h = v * inverses.at(place) + offsets.at(place);
    const V<A> dz = through<A, is_silu>(h * weights.at(place) + biases.at(place), d);
    sum += dz;
    product += dz * h;
    return dz;
  };
  reduce<A, is_tiled, 2>(
      len, period, sums, products,
      [&](int64_t at, int64_t place, V<A>& sum, V<A>& product) {
        const V<A> dz = take(Vector<A>::load(x + at), Vector<A>::load(dy + at), place, sum, product);
        if (kept != nullptr) Vector<A>::store(dz, kept + at);
      },
      [&](int64_t at, int64_t place, int64_t count, V<A>& sum, V<A>& product) {
        const V<A> v = load_part<T, A>(x + at, count), d = load_part<T, A>(dy + at, count);
        const V<A> dz = take(v, d, place, sum, product);
        if (kept != nullptr) store_part<A, A>(dz, kept + at, count);
      });
}

template <typename T, typename A, bool is_tiled, bool is_silu>
void gradient_by(const T* x, const T* dy, T* dx, int64_t len, int64_t period, const A* scale, const A* shift,
                 const A* slope, const A* level) {
  const Coefficients<A, is_tiled> scales(scale), shifts(shift), slopes(slope), levels(level);
  const auto of = [&](V<A> v, V<A> d, int64_t place) {
    const V<A> dz = through<A, is_silu>(v * scales.at(place) + shifts.at(place), d);
    return dz * scales.at(place) + (v * slopes.at(place) + levels.at(place));
  };
  each<Vector<A>::lanes>(
      len, period,
      [&](int64_t at, int64_t place) {
        Vector<A>::store(of(Vector<A>::load(x + at), Vector<A>::load(dy + at), place), dx + at);
      },
      [&](int64_t at, int64_t place, int64_t count) {
        const V<A> v = load_part<T, A>(x + at, count), d = load_part<T, A>(dy + at, count);
        store_part<T, A>(of(v, d, place), dx + at, count);
      });
}

// A strip of one coefficient is gone through as if this were its period.
template <typename A>
constexpr int64_t AT_ONCE = 4 * Vector<A>::lanes;

template <typename T, typename A>
void moments(const T* x, int64_t len, int64_t period, const A* shift, double* sums, double* squares) {
  if (period > 0) {
    moments_by<T, A, true>(x, len, period, shift, sums, squares);
  } else {
    moments_by<T, A, false>(x, len, AT_ONCE<A>, shift, sums, squares);
  }
}

// The one of four functions for a strip with or without a period, and with or without SiLU.
#define CHOOSE(function, ...)                                                                     \
  (period > 0 ? is_silu ? function<T, A, true, true> : function<T, A, true, false>                \
              : is_silu ? function<T, A, false, true> : function<T, A, false, false>)(__VA_ARGS__)

template <typename T, typename A>
void apply(const T* x, T* y, int64_t len, int64_t period, const A* scale, const A* shift, bool is_silu) {
  CHOOSE(apply_by, x, y, len, period > 0 ? period : AT_ONCE<A>, scale, shift);
}

template <typename T, typename A>
void slopes(const T* x, const T* dy, int64_t len, int64_t period, const A* inverse, const A* offset,
            const A* weight, const A* bias, double* sums, double* products, A* kept, bool is_silu) {
  CHOOSE(slopes_by, x, dy, len, period > 0 ? period : AT_ONCE<A>, inverse, offset, weight, bias, sums, products, kept);
}

template <typename T, typename A>
void gradient(const T* x, const T* dy, T* dx, int64_t len, int64_t period, const A* scale, const A* shift,
              const A* slope, const A* level, bool is_silu) {
  CHOOSE(gradient_by, x, dy, dx, len, period > 0 ? period : AT_ONCE<A>, scale, shift, slope, level);
}

template <typename T, typename A>
constexpr Kernels<T, A> kernels() {
  return {Vector<A>::lanes, moments<T, A>, apply<T, A>,  slopes<T, A>,          gradient<T, A>,
          rms<T, A>,        rms_gradient<T, A>,    swiglu<T, A>, swiglu_gradient<T, A>, keep<T, A>};
}

}  // namespace

extern const Set TESSERA_SET;
const Set TESSERA_SET = {kernels<float, float>(), kernels<double, double>(), kernels<bfloat16, float>(),
                         adamw<float>, adamw<double>, best<float>, best<double>};

}  // namespace tessera
