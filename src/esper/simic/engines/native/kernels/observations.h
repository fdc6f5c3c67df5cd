// The observations of a block of rows, as the first layers read them.
#pragma once
#include <vector>

#include "layer.h"

namespace esper {

class Observations {
 public:
  // For `first` layers that read dots, up to `most_dots` in a row, or 0.
  Observations(const Layer& first, int rows, int most_dots)
      : first_(first), most_dots_(most_dots), rows_(rows * first.in_stride, 0.0f), arranged_(first.in),
        dots_(rows, most_dots) {}

  Input input() const { return {rows_.data(), are_dots_ ? &dots_ : nullptr}; }

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
  AlignedFloats rows_;
  std::vector<uint8_t> arranged_;
  Dots dots_;
  bool are_dots_ = false;
};

}  // namespace esper
