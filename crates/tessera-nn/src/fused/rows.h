// The loops over rows whose values lie next to one another, and over values each on its own.

#pragma once

#include "vector.h"

namespace tessera {
namespace {

// Calls whole(value) for each vector of `len` values, then part(value, count) for what is left over.
template <int64_t lanes, typename Whole, typename Part>
inline void along(int64_t len, const Whole& whole, const Part& part) {
  int64_t at = 0;
  for (; at + lanes <= len; at += lanes) whole(at);
  if (at < len) part(at, len - at);
}

// Sums values(at, count), a vector, over `len` values; four vectors at a time, which hides the latency of additions.
template <typename A, typename Values>
inline A total(int64_t len, const Values& values) {
  constexpr int64_t lanes = Vector<A>::lanes;
  V<A> sums[4] = {};
  int64_t at = 0;
  for (; at + 4 * lanes <= len; at += 4 * lanes) {
    for (int way = 0; way < 4; ++way) sums[way] += values(at + way * lanes, lanes);
  }
  for (; at < len; at += lanes) sums[0] += values(at, len - at < lanes ? len - at : lanes);
  const V<A> whole = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  A sum = 0;
  for (int64_t lane = 0; lane < lanes; ++lane) sum += whole[lane];
  return sum;
}

// All of a vector's values, or the first ones.
template <typename T, typename A>
inline V<A> some(const T* from, int64_t count) {
  return count == Vector<A>::lanes ? Vector<A>::load(from) : load_part<T, A>(from, count);
}

template <typename T, typename A>
inline void put(V<A> v, T* to, int64_t count) {
  if (count == Vector<A>::lanes) {
    Vector<A>::store(v, to);
  } else {
    store_part<T, A>(v, to, count);
  }
}

// As `along`, with one function for whole vectors and for parts.
template <typename A, typename Each>
inline void all(int64_t len, const Each& each) {
  along<Vector<A>::lanes>(
      len, [&](int64_t at) { each(at, Vector<A>::lanes); }, [&](int64_t at, int64_t count) { each(at, count); });
}

template <typename T, typename A>
void rms(const T* x, const A* weight, int64_t rows, int64_t width, A eps, T* y, A* inverses) {
  for (int64_t row = 0; row < rows; ++row, x += width, y += width) {
    const A squares = total<A>(width, [&](int64_t at, int64_t count) {
      const V<A> v = some<T, A>(x + at, count);
      return v * v;
    });
    const A inverse = 1 / root(squares / width + eps);
    inverses[row] = inverse;
    all<A>(width, [&](int64_t at, int64_t count) {
      put<T, A>(some<T, A>(x + at, count) * inverse * some<A, A>(weight + at, count), y + at, count);
    });
  }
}

// With h = x * inverse and g = dy * weight: dx = inverse (g - h * mean of g h).
template <typename T, typename A>
void rms_gradient(const T* x, const T* dy, const A* weight, const A* inverses, int64_t rows, int64_t width, T* dx,
                  A* sums) {
  for (int64_t row = 0; row < rows; ++row, x += width, dy += width, dx += width) {
    const A inverse = inverses[row];
    const A products = total<A>(width, [&](int64_t at, int64_t count) {
      return some<T, A>(x + at, count) * some<T, A>(dy + at, count) * some<A, A>(weight + at, count);
    });
    const A slope = inverse * inverse * inverse * products / width;
    all<A>(width, [&](int64_t at, int64_t count) {
      const V<A> v = some<T, A>(x + at, count), d = some<T, A>(dy + at, count);
      put<A, A>(some<A, A>(sums + at, count) + v * d * inverse, sums + at, count);
      put<T, A>(d * some<A, A>(weight + at, count) * inverse - v * slope, dx + at, count);
    });
  }
}

template <typename T, typename A>
void swiglu(const T* within, int64_t rows, int64_t width, T* y) {
  for (int64_t row = 0; row < rows; ++row, within += 2 * width, y += width) {
    all<A>(width, [&](int64_t at, int64_t count) {
      const V<A> a = some<T, A>(within + at, count), b = some<T, A>(within + width + at, count);
      put<T, A>(activate<A, true>(a) * b, y + at, count);
    });
  }
}

template <typename T, typename A>
void swiglu_gradient(const T* within, const T* dy, int64_t rows, int64_t width, T* at_within) {
  for (int64_t row = 0; row < rows; ++row, within += 2 * width, at_within += 2 * width, dy += width) {
    all<A>(width, [&](int64_t at, int64_t count) {
      const V<A> a = some<T, A>(within + at, count), b = some<T, A>(within + width + at, count);
      const V<A> d = some<T, A>(dy + at, count);
      const V<A> e = Vector<A>::exp(-a);
      const V<A> s = A(1) / (e + A(1));
      put<T, A>(d * b * (s * (a * (e * s) + A(1))), at_within + at, count);
      put<T, A>(d * a * s, at_within + width + at, count);
    });
  }
}

// `scale` where the byte is not below `dropped`, else 0.
template <typename A>
inline V<A> kept(const uint8_t* bytes, int64_t count, uint8_t dropped, A scale) {
  typename Vector<A>::B b = {};
  if (count == Vector<A>::lanes) {
    __builtin_memcpy(&b, bytes, sizeof b);
  } else {
    for (int64_t lane = 0; lane < count; ++lane) b[lane] = bytes[lane];
  }
  typedef typename Vector<A>::U U;
  return __builtin_convertvector(b, U) >= (U{} + dropped) ? V<A>{} + scale : V<A>{};
}

template <typename T, typename A>
void keep(const T* x, const T* v, const uint8_t* bytes, int64_t len, uint8_t dropped, A scale, T* y) {
  all<A>(len, [&](int64_t at, int64_t count) {
    const V<A> here = some<T, A>(v + at, count) * kept<A>(bytes + at, count, dropped, scale);
    put<T, A>(x == nullptr ? here : some<T, A>(x + at, count) + here, y + at, count);
  });
}

template <typename A>
void adamw(A* x, const A* gradient, const A* decayed, A* average, A* square, int64_t len, const AdamW<A>& by) {
  all<A>(len, [&](int64_t at, int64_t count) {
    V<A> v = some<A, A>(x + at, count);
    if (decayed != nullptr) v -= v * (some<A, A>(decayed + at, count) * by.decay);
    const V<A> g = some<A, A>(gradient + at, count);
    V<A> m = some<A, A>(average + at, count), s = some<A, A>(square + at, count);
    m += (g - m) * by.rate1;
    s += (g * g - s) * by.rate2;
    put<A, A>(m, average + at, count);
    put<A, A>(s, square + at, count);
    put<A, A>(v - m / (roots<A>(s) * by.divisor + by.epsilon) * by.rate, x + at, count);
  });
}

template <typename A>
void best(const A* scores, const A* halves, int64_t rows, int64_t width, int64_t first, A* best, int64_t* indices) {
  typedef typename Vector<A>::U U;
  constexpr int64_t lanes = Vector<A>::lanes;
  const V<A> least = V<A>{} - static_cast<A>(__builtin_inf());
  for (int64_t row = 0; row < rows; ++row, scores += width) {
    // Of each lane the largest, and the number of its vector.
    V<A> largest = least;
    U numbers = {}, number = {};
    int64_t at = 0;
    for (; at + lanes <= width; at += lanes, number += 1) {
      const V<A> v = Vector<A>::load(scores + at) - Vector<A>::load(halves + at);
      numbers = v > largest ? number : numbers;
      largest = v > largest ? v : largest;
    }
    for (int64_t lane = 0; at < width; ++at, ++lane) {
      const A v = scores[at] - halves[at];
      if (v > largest[lane]) {
        largest[lane] = v;
        numbers[lane] = number[0];
      }
    }
    A most = largest[0];
    int64_t place = static_cast<int64_t>(numbers[0]) * lanes;
    for (int64_t lane = 1; lane < lanes; ++lane) {
      const int64_t here = static_cast<int64_t>(numbers[lane]) * lanes + lane;
      if (largest[lane] > most || (largest[lane] == most && here < place)) {
        most = largest[lane];
        place = here;
      }
    }
    if (most > best[row]) {
      best[row] = most;
      indices[row] = first + place;
    }
  }
}

}  // namespace
}  // namespace tessera
