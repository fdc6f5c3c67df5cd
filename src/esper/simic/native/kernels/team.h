// Threads that do one call's work together.
#pragma once
#include <atomic>
#include <thread>
#include <vector>

namespace esper {

class Team {
 public:
  // Runs `work(member)` for member 0 (on the caller's thread) to size - 1, and waits for all.
  template <class Work>
  static void run(int size, Work work) {
    Team team(size);
    std::vector<std::thread> threads;
    for (int member = 1; member < size; ++member) threads.emplace_back([&, member] { work(team, member); });
    work(team, 0);
    for (std::thread& thread : threads) thread.join();
  }

  const int size;

  // The next piece of the work between two calls of `wait`, from 0: whoever is free takes it.
  int take() { return next_.fetch_add(1, std::memory_order_relaxed); }

  // Goes on when every member is here.
  void wait() {
    if (size == 1) return next_.store(0);
    const int turn = turn_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      next_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    // Members arrive within microseconds of each other, unless another process has their core.
    for (int spins = 0; turn_.load(std::memory_order_acquire) == turn; ++spins)
      if (spins > 10000) std::this_thread::yield();
  }

 private:
  explicit Team(int size) : size(size) {}
  std::atomic<int> arrived_{0}, turn_{0}, next_{0};
};

}  // namespace esper
