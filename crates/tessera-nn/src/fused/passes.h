// The arithmetic of group norm in both directions, for one piece of a sample after the other.

#pragma once

#include <cmath>
#include <type_traits>

#include "glue.h"
#include "plan.h"

namespace tessera {

// Values of a group from which a shift is taken, about.
constexpr int64_t SOME = 32;

// Mean and squared deviations of so many values; combined by Chan's formula.
struct Moments {
  double count = 0, mean = 0, deviations = 0;

  void add(const Moments& other) {
    const double sum = count + other.count, apart = other.mean - mean;
    deviations += other.deviations + apart * apart * count * other.count / sum;
    mean += apart * other.count / sum;
    count = sum;
  }
};

template <typename T>
struct Forward {
  using A = typename Of<T>::A;

  const Plan& plan;
  const T* x;
  T* y;
  const A *weight, *bias;
  double eps;
  bool is_silu;
  double *means, *inverses;  // [N, groups]
  std::vector<Moments>& parts;  // [N, pieces, groups]

  Tile<A> scale{plan}, shift{plan};
  Sums sums{plan}, squares{plan};
  std::vector<A> shifts = std::vector<A>(plan.groups);

  // Squares are of what lies apart from the mean of some values: without that, a mean far from zero would cost digits.
  void first(int64_t sample, int64_t number) {
    const int64_t per_group = plan.per_group(), len = plan.len(number);
    const int64_t some = std::min(len, std::max<int64_t>(4, SOME / per_group));
    sums.clear();
    plan.each_channel([&](int64_t group, int64_t c) {
      for (int64_t k = 0; k < some; ++k) {
        sums.values[group] += number_of(x[plan.at(sample, c, number * plan.piece + k * len / some)]);
      }
    });
    for (int64_t group = 0; group < plan.groups; ++group) {
      shifts[group] = static_cast<A>(sums.values[group] / static_cast<double>(some * per_group));
    }
    shift.fill(plan, [&](int64_t group, int64_t) { return shifts[group]; });
    sums.clear();
    squares.clear();
    plan.strips(sample, number, per_group, [&](int64_t at, int64_t len, int64_t c) {
      Of<T>::kernels().moments(x + at, len, plan.period, &shift.values[c], &sums.values[c], &squares.values[c]);
    });
    sums.fold(plan);
    squares.fold(plan);
    const double count = static_cast<double>(len * per_group);
    for (int64_t group = 0; group < plan.groups; ++group) {
      double sum = 0, square = 0;
      for (int64_t c = group * per_group; c < (group + 1) * per_group; ++c) {
        sum += sums.values[c];
        square += squares.values[c];
      }
      const double apart = sum / count;
      Moments& part = parts[(sample * plan.pieces + number) * plan.groups + group];
      part = {count, shifts[group] + apart, square - apart * sum};
    }
  }

  void between(int64_t sample) {
    for (int64_t group = 0; group < plan.groups; ++group) {
      Moments whole;
      for (int64_t number = 0; number < plan.pieces; ++number) {
        whole.add(parts[(sample * plan.pieces + number) * plan.groups + group]);
      }
      means[sample * plan.groups + group] = whole.mean;
      inverses[sample * plan.groups + group] = 1 / std::sqrt(std::max(whole.deviations, 0.0) / whole.count + eps);
    }
  }

  void last(int64_t sample, int64_t number) {
    const double *mean = means + sample * plan.groups, *inverse = inverses + sample * plan.groups;
    scale.fill(plan, [&](int64_t group, int64_t c) { return inverse[group] * weight[c]; });
    shift.fill(plan, [&](int64_t group, int64_t c) { return bias[c] - mean[group] * inverse[group] * weight[c]; });
    plan.strips(sample, number, 1, [&](int64_t at, int64_t len, int64_t c) {
      Of<T>::kernels().apply(x + at, y + at, len, plan.period, &scale.values[c], &shift.values[c], is_silu);
    });
  }
};

template <typename T>
struct Backward {
  using A = typename Of<T>::A;

  const Plan& plan;
  const T *x, *dy;
  T* dx;  // null where nobody asks for it
  const A *weight, *bias;
  bool is_silu;
  const double *means, *inverses;        // [N, groups]
  std::vector<double>&sums, &products;  // [N, pieces, C]
  std::vector<double>&slopes, &levels;  // [N, groups]

  // Where dz waits for its second use: in dx, where that holds it whole. SiLU is not computed again then.
  A* kept(int64_t at) const {
    if constexpr (std::is_same_v<T, A>) return dx != nullptr && is_silu ? dx + at : nullptr;
    return nullptr;
  }

  Tile<A> tiles[4] = {Tile<A>(plan), Tile<A>(plan), Tile<A>(plan), Tile<A>(plan)};
  Sums sum{plan}, product{plan};

  // dz and dz times the normalised value, summed by channel.
  void first(int64_t sample, int64_t number) {
    const double *mean = means + sample * plan.groups, *inverse = inverses + sample * plan.groups;
    tiles[0].fill(plan, [&](int64_t group, int64_t) { return inverse[group]; });
    tiles[1].fill(plan, [&](int64_t group, int64_t) { return -mean[group] * inverse[group]; });
    tiles[2].fill(plan, [&](int64_t, int64_t c) { return weight[c]; });
    tiles[3].fill(plan, [&](int64_t, int64_t c) { return bias[c]; });
    sum.clear();
    product.clear();
    plan.strips(sample, number, 1, [&](int64_t at, int64_t len, int64_t c) {
      Of<T>::kernels().slopes(x + at, dy + at, len, plan.period, &tiles[0].values[c], &tiles[1].values[c],
                              &tiles[2].values[c], &tiles[3].values[c], &sum.values[c], &product.values[c], kept(at),
                              is_silu);
    });
    sum.fold(plan);
    product.fold(plan);
    const int64_t to = (sample * plan.pieces + number) * plan.channels;
    std::copy_n(sum.values.begin(), plan.channels, sums.begin() + to);
    std::copy_n(product.values.begin(), plan.channels, products.begin() + to);
  }

  // dx = inverse (weight dz - mean of weight dz - h mean of weight dz h), which is linear in x beside dz.
  void between(int64_t sample) {
    const int64_t per_group = plan.per_group();
    const double count = static_cast<double>(plan.positions * per_group);
    for (int64_t group = 0; group < plan.groups; ++group) {
      double plain = 0, turned = 0;
      for (int64_t number = 0; number < plan.pieces; ++number) {
        const int64_t from = (sample * plan.pieces + number) * plan.channels;
        for (int64_t c = group * per_group; c < (group + 1) * per_group; ++c) {
          plain += weight[c] * sums[from + c];
          turned += weight[c] * products[from + c];
        }
      }
      const int64_t at = sample * plan.groups + group;
      slopes[at] = -inverses[at] * inverses[at] * turned / count;
      levels[at] = -inverses[at] * plain / count - slopes[at] * means[at];
    }
  }

  void last(int64_t sample, int64_t number) {
    if (dx == nullptr) return;
    const double *mean = means + sample * plan.groups, *inverse = inverses + sample * plan.groups;
    const double *slope = slopes.data() + sample * plan.groups, *level = levels.data() + sample * plan.groups;
    tiles[0].fill(plan, [&](int64_t group, int64_t c) { return inverse[group] * weight[c]; });
    tiles[1].fill(plan, [&](int64_t group, int64_t c) { return bias[c] - mean[group] * inverse[group] * weight[c]; });
    tiles[2].fill(plan, [&](int64_t group, int64_t) { return slope[group]; });
    tiles[3].fill(plan, [&](int64_t group, int64_t) { return level[group]; });
    plan.strips(sample, number, 1, [&](int64_t at, int64_t len, int64_t c) {
      const bool is_kept = kept(at) != nullptr;
      Of<T>::kernels().gradient(x + at, (is_kept ? dx : dy) + at, dx + at, len, plan.period, &tiles[0].values[c],
                                &tiles[1].values[c], &tiles[2].values[c], &tiles[3].values[c], is_silu && !is_kept);
    });
  }
};

}  // namespace tessera
