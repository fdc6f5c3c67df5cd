// Threads that do one call's work together.
#pragma once
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

namespace esper {

// Whoever is waited for comes within microseconds, unless another process has its core: then to spin on would take a
// core from it, or from the one that is waited for.
inline void wait_while(const std::atomic<int>& value, int before) {
  constexpr int SPINS = 20000;
  for (int spins = 0; spins < SPINS; ++spins)
    if (value.load(std::memory_order_acquire) != before) return;
  value.wait(before, std::memory_order_acquire);
}

class Team {
 public:
  // Runs `work(team, member)` for member 0 (on the caller's thread) to size - 1, and waits for all. There are fewer
  // than `wanted` where the system gives no more threads.
  template <class Work>
  static void run(int wanted, Work work) noexcept {
    Team team;
    if (wanted <= 1) return work(team, 0);
    Helpers& helping = helpers();
    const int count = helping.count(wanted - 1);
    team.size_ = 1 + count;
    helping.begin(count, &team, &work, [](Team* team, void* work, int member) {
      (*static_cast<Work*>(work))(*team, member);
    });
    work(team, 0);
    helping.finish();
  }

  // The next piece of the work between two calls of `wait`, from 0: whoever is free takes it.
  int take() { return next_.fetch_add(1, std::memory_order_relaxed); }

  // Goes on when every member is here.
  void wait() {
    const int turn = turn_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < size_) return wait_while(turn_, turn);
    arrived_.store(0, std::memory_order_relaxed);
    next_.store(0, std::memory_order_relaxed);
    turn_.store(turn + 1, std::memory_order_release);
    turn_.notify_all();
  }

 private:
  using Call = void (*)(Team*, void*, int);

  // The threads that help one calling thread. They stay, asleep between calls: to start and to end one takes longer
  // than to evaluate a small rollout.
  class Helpers {
   public:
    ~Helpers() {
      for (auto& helper : helpers_) {
        helper->post(ENDED);
        helper->thread.join();
      }
    }

    // That there are as many, or as many as there can be.
    int count(int wanted) {
      if (int(helpers_.size()) >= wanted) return wanted;
      // Signals are the caller's to handle: what it waits for they would not interrupt here.
      sigset_t all, before;
      sigfillset(&all);
      for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&all, fault);
      pthread_sigmask(SIG_SETMASK, &all, &before);
      try {
        while (int(helpers_.size()) < wanted) {
          auto helper = std::make_unique<Helper>();
          helper->thread = std::thread(&Helpers::help, this, helper.get(), int(helpers_.size()) + 1);
          helpers_.push_back(std::move(helper));
        }
      } catch (const std::system_error&) {
      }
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      return int(helpers_.size());
    }

    void begin(int count, Team* team, void* work, Call call) {
      team_ = team, work_ = work, call_ = call;
      working_.store(count, std::memory_order_relaxed);
      for (int h = 0; h < count; ++h) {
        const int before = helpers_[h]->job.load(std::memory_order_relaxed);
        helpers_[h]->post((before + 1) & INT_MAX);
      }
    }

    void finish() {
      for (int working; (working = working_.load(std::memory_order_acquire));) wait_while(working_, working);
    }

    const pid_t process = getpid();

   private:
    static constexpr int ENDED = -1;

    struct Helper {
      std::atomic<int> job{0};
      std::thread thread;
      void post(int number) {
        job.store(number, std::memory_order_release);
        job.notify_one();
      }
    };

    void help(Helper* helper, int member) {
      for (int job = 0;;) {
        wait_while(helper->job, job);
        if ((job = helper->job.load(std::memory_order_acquire)) == ENDED) return;
        call_(team_, work_, member);
        if (working_.fetch_sub(1, std::memory_order_acq_rel) == 1) working_.notify_one();
      }
    }

    std::vector<std::unique_ptr<Helper>> helpers_;
    Team* team_;
    void* work_;
    Call call_;
    std::atomic<int> working_{0};
  };

  static Helpers& helpers() {
    struct Owner {
      Helpers* helpers = nullptr;
      ~Owner() {
        if (helpers && helpers->process == getpid()) delete helpers;
      }
    };
    static thread_local Owner owner;
    // Threads are not there in a process that was forked from theirs: what is left of them cannot be used, nor ended.
    if (!owner.helpers || owner.helpers->process != getpid()) owner.helpers = new Helpers();
    return *owner.helpers;
  }

  Team() = default;

  int size_ = 1;
  std::atomic<int> arrived_{0}, turn_{0}, next_{0};
};

}  // namespace esper
