// What MinAtar's games have in common: esper.envs.device.minatar.game for one copy at a time.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace esper {

// A game has the struct State of whole numbers, in floats, in the order of Python's fields, with the last action first;
// `start` and `play` it, and `draw` its channels. It draws PLAYS numbers in a step.
template <class Game, class S, int CHANNELS, int PLAYS, int STARTS>
struct MinAtar {
  using Value = uint8_t;
  static constexpr bool DISCRETE = true;
  static constexpr int STATE = sizeof(S) / sizeof(float), OBSERVATION = CHANNELS * 100;
  static constexpr int STEP_DRAWS = 1 + PLAYS, BEGIN_DRAWS = STARTS;

  // The next game inherits the last action.
  static void begin(const float* uniform, float* s) {
    std::fill(s + 1, s + STATE, 0.0f);
    Game::start(uniform, *reinterpret_cast<S*>(s));
  }
  static float step(float* s, int64_t action, const float* uniform, bool& lost) {
    if (!(uniform[0] < 0.1f)) s[0] = float(action);
    lost = false;
    return Game::play(*reinterpret_cast<S*>(s), int(s[0]), uniform + 1, lost);
  }
  static void observe(const float* s, uint8_t* obs) {
    std::memset(obs, 0, OBSERVATION);
    Game::draw(*reinterpret_cast<const S*>(s), reinterpret_cast<uint8_t(*)[10][10]>(obs));
  }
};

inline float in_grid(float x) { return std::min(std::max(x, 0.0f), 9.0f); }
inline bool inside(float x) { return x >= 0 && x <= 9; }

// Whole numbers from 0 to below `count`.
inline float whole(float uniform, int count) { return float(int(uniform * float(count))); }

}  // namespace esper
