// Where something is near: of pictures that are mostly 0, convolutions make the same of every place that no dot is near.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace esper {

// The rows of a block, for each place of their convolutions: first those with a dot near, in order, then the others.
class Busy {
 public:
  struct Rows {
    const int* rows;
    int count;
  };

  Busy(int places, int rows) : places_(places), rows_(rows), lists_(places * rows), counts_(places), near_(places) {}

  int places() const { return places_; }
  Rows near(int place) const { return {&lists_[place * rows_], counts_[place]}; }
  Rows far(int place) const { return {&lists_[place * rows_] + counts_[place], count_ - counts_[place]}; }

  // How many places from this one on are near dots in all rows.
  int all_near(int place) const {
    const int first = place;
    while (place < places_ && counts_[place] == count_) ++place;
    return place - first;
  }

  // Takes `count` rows, of which `mark(row, near)` marks the places that a dot is near. Whether there are enough others
  // for it to be worth it.
  template <class Mark>
  bool take(int count, Mark mark) {
    count_ = count;
    std::fill(counts_.begin(), counts_.end(), 0);
    int64_t all = 0;
    for (int r = 0; r < count; ++r) {
      std::fill(near_.begin(), near_.end(), 0);
      mark(r, near_.data());
      for (int place = 0; place < places_; ++place) {
        // Of r rows so far the others lie at the end.
        int* list = &lists_[place * rows_];
        const int others = r - counts_[place];
        list[near_[place] ? counts_[place]++ : count - 1 - others] = r;
        all += near_[place];
      }
    }
    return all < MOST * count * places_;
  }

 private:
  static constexpr double MOST = 0.85;

  const int places_, rows_;
  int count_ = 0;
  std::vector<int> lists_, counts_;
  std::vector<uint8_t> near_;
};

}  // namespace esper
