// Threads that do one call's work together.
#pragma once
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace esper {

class Team {
 public:
  // Runs `work(team, member)` for member 0 (on the caller's thread) to size - 1, and waits for all. There are fewer than
  // `wanted` where the system gives no more threads.
  template <class Work>
  static void run(int wanted, Work work) {
    Team team;
    std::vector<std::thread> threads;
    try {
      for (int member = 1; member < wanted; ++member)
        threads.emplace_back([&, member] {
          team.pass(0);
          work(team, member);
        });
    } catch (const std::system_error&) {
    }
    team.size_ = int(threads.size()) + 1;
    team.begin(1);
    work(team, 0);
    for (std::thread& thread : threads) thread.join();
  }

  // The next piece of the work between two calls of `wait`, from 0: whoever is free takes it.
  int take() { return next_.fetch_add(1, std::memory_order_relaxed); }

  // Goes on when every member is here.
  void wait() {
    const int turn = turn_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < size_) return pass(turn);
    arrived_.store(0, std::memory_order_relaxed);
    next_.store(0, std::memory_order_relaxed);
    begin(turn + 1);
  }

 private:
  Team() = default;

  void begin(int turn) {
    turn_.store(turn, std::memory_order_release);
    turn_.notify_all();
  }

  // Members arrive within microseconds of each other, unless another process has their core: then to spin on would
  // take a core from it, or from the one that is waited for.
  void pass(int turn) const {
    for (int spins = 0; spins < SPINS; ++spins)
      if (turn_.load(std::memory_order_acquire) != turn) return;
    turn_.wait(turn, std::memory_order_acquire);
  }

  static constexpr int SPINS = 20000;

  int size_ = 1;
  std::atomic<int> arrived_{0}, turn_{0}, next_{0};
};

}  // namespace esper
