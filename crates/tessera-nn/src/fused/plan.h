// How a tensor lies in memory, how it is cut into pieces and strips, and how threads share these.
//
// A sample is done whole by one thread where there are enough samples, so that its second reading is from a cache;
// where there are fewer samples than threads, threads share its pieces. Pieces, and the order in which they are summed,
// depend on shapes alone: a sample's numbers do not depend on how many threads or other samples there are.

#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace tessera {

// Values of a piece, and the fewest that a thread is woken for.
constexpr int64_t PIECE = 1 << 16;
constexpr int64_t GRAIN = 1 << 15;

inline bool has_channels_last(const at::Tensor& tensor) { return tensor.movedim(1, -1).is_contiguous(); }

// How a tensor [N, C, ..] lies in memory, and how it is cut.
struct Plan {
  int64_t samples, channels, groups, positions;
  bool channels_last;
  // Positions of a piece, and pieces of a sample.
  int64_t piece, pieces;
  // Values after which coefficients come round; 0 where a strip has one channel.
  int64_t period = 0;

  Plan(const at::Tensor& x, int64_t groups, int64_t lanes)
      : samples(x.size(0)), channels(x.size(1)), groups(groups), channels_last(has_channels_last(x)) {
    positions = 1;
    for (int64_t axis = 2; axis < x.dim(); ++axis) positions *= x.size(axis);
    piece = std::max<int64_t>(1, PIECE / channels);
    pieces = (positions + piece - 1) / piece;
    if (channels_last) period = std::lcm(channels, lanes);
    while (channels_last && period < 4 * lanes) period *= 2;
  }

  int64_t per_group() const { return channels / groups; }

  // Coefficients or sums of a strip or of all channels.
  int64_t tile() const { return channels_last ? period : channels; }

  int64_t len(int64_t number) const { return std::min(piece, positions - number * piece); }

  // The place of a value.
  int64_t at(int64_t sample, int64_t channel, int64_t position) const {
    return channels_last ? (sample * positions + position) * channels + channel
                         : (sample * channels + channel) * positions + position;
  }

  // Calls f(first value, number of values, first channel) for each strip of a piece; with positions last these are
  // `together` channels where all positions are in one piece.
  template <typename F>
  void strips(int64_t sample, int64_t number, int64_t together, F f) const {
    if (channels_last) {
      f(at(sample, 0, number * piece), len(number) * channels, 0);
    } else {
      if (pieces > 1) together = 1;
      for (int64_t channel = 0; channel < channels; channel += together) {
        f(at(sample, channel, number * piece), len(number) * together, channel);
      }
    }
  }

  // Calls f(group, channel) for each channel.
  template <typename F>
  void each_channel(F f) const {
    int64_t channel = 0;
    for (int64_t group = 0; group < groups; ++group) {
      for (const int64_t end = channel + per_group(); channel < end; ++channel) f(group, channel);
    }
  }

  // Runs first(sample, piece) on all pieces of a sample, then between(sample), then last(sample, piece) on all.
  // `make` gives each thread what these three are called on.
  template <typename Make>
  void run(Make make) const {
    if (samples >= at::get_num_threads() || pieces == 1) {
      const int64_t grain = std::max<int64_t>(1, GRAIN / (positions * channels));
      at::parallel_for(0, samples, grain, [&](int64_t begin, int64_t end) {
        auto work = make();
        for (int64_t sample = begin; sample < end; ++sample) {
          for (int64_t number = 0; number < pieces; ++number) work.first(sample, number);
          work.between(sample);
          for (int64_t number = 0; number < pieces; ++number) work.last(sample, number);
        }
      });
      return;
    }
    at::parallel_for(0, samples * pieces, 1, [&](int64_t begin, int64_t end) {
      auto work = make();
      for (int64_t at = begin; at < end; ++at) work.first(at / pieces, at % pieces);
    });
    auto work = make();
    for (int64_t sample = 0; sample < samples; ++sample) work.between(sample);
    at::parallel_for(0, samples * pieces, 1, [&](int64_t begin, int64_t end) {
      auto work = make();
      for (int64_t at = begin; at < end; ++at) work.last(at / pieces, at % pieces);
    });
  }
};

// A number for each channel, repeated over the period if there is one.
template <typename A>
struct Tile {
  std::vector<A> values;

  explicit Tile(const Plan& plan) : values(plan.tile()) {}

  template <typename F>
  void fill(const Plan& plan, F of_channel) {
    plan.each_channel([&](int64_t group, int64_t c) { values[c] = static_cast<A>(of_channel(group, c)); });
    for (size_t at = plan.channels; at < values.size(); ++at) values[at] = values[at - plan.channels];
  }
};

// Sums for each place of the period, which end as sums for each channel.
struct Sums {
  std::vector<double> values;

  explicit Sums(const Plan& plan) : values(plan.tile()) {}

  void clear() { std::fill(values.begin(), values.end(), 0.0); }

  void fold(const Plan& plan) {
    const size_t channels = plan.channels;
    for (size_t start = channels; start < values.size(); start += channels) {
      for (size_t c = 0; c < channels; ++c) values[c] += values[start + c];
    }
  }
};

}  // namespace tessera
