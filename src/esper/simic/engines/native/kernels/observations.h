// The observations of a block of rows, as the first layers read them.
#pragma once
#include <vector>

#include "layer.h"

namespace esper {

class Observations {
 public:
  // For `first` layers that read dots, up to `most_dots` in a row, or 0, and next ones that may read what is near them.
  Observations(const Layer& first, int rows, int most_dots, bool reads_busy)
      : first_(first), most_dots_(most_dots), reads_busy_(reads_busy), rows_(rows * first.in_stride, 0.0f),
        arranged_(first.in), dots_(rows, most_dots), busy_(reads_busy ? first.places() : 0, rows) {}

  Input input() const { return {rows_.data(), are_dots_ ? &dots_ : nullptr, are_far_ ? &busy_ : nullptr}; }

  // Takes `count` rows of floats; `row(r)` is where the r-th is until the next call.
  template <class Row>
  void take(int count, Row row) {
    for (int r = 0; r < count; ++r) first_.arrange(row(r), &rows_[r * first_.in_stride]);
    find_dots(count, [&](int r) { return dots_.add(&rows_[r * first_.in_stride], padded(first_.in)); });
  }

  // Takes rows of bytes, each of which counts as what `values` [256] have for it.
  template <class Row>
  void take(int count, Row row, const float* values) {
    const auto add = [&](int r) {
      if (r + AHEAD < count) fetch(row(r + AHEAD));
      return dots_.add(arranged(row(r)), first_.in, values);
    };
    if (values[0] == 0 && find_dots(count, add)) return;
    for (int r = 0; r < count; ++r)
      first_.arrange(row(r), &rows_[r * first_.in_stride], [=](uint8_t value) { return values[value]; });
  }

 private:
  template <class Add>
  bool find_dots(int count, Add add) {
    dots_.clear();
    are_dots_ = most_dots_ > 0;
    for (int r = 0; are_dots_ && r < count; ++r) are_dots_ = add(r);
    are_far_ = are_dots_ && reads_busy_ && busy_.take(count, [&](int r, uint8_t* near) { first_.mark(dots_[r], near); });
    return are_dots_;
  }

  // Rows of a minibatch are anywhere in a batch: the processor is told of them some rows ahead.
  void fetch(const uint8_t* row) const {
    for (int i = 0; i < first_.in; i += 64) __builtin_prefetch(row + i);
  }

  const uint8_t* arranged(const uint8_t* row) {
    if (first_.channels == 1) return row;
    first_.arrange(row, arranged_.data());
    return arranged_.data();
  }

  static constexpr int AHEAD = 4;

  const Layer& first_;
  const int most_dots_;
  const bool reads_busy_;
  AlignedFloats rows_;
  std::vector<uint8_t> arranged_;
  Dots dots_;
  Busy busy_;
  bool are_dots_ = false, are_far_ = false;
};

}  // namespace esper
