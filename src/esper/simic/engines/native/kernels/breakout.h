// esper.envs.device.minatar.breakout for one copy at a time.
#pragma once
#include "minatar.h"

namespace esper {

struct BreakoutState {
  float last_action, paddle, x, y, last_x, last_y, right, down, struck, bricks[30];
};

struct Breakout : MinAtar<Breakout, BreakoutState, 4, 0, 1> {
  using State = BreakoutState;

  static void start(const float* uniform, State& s) {
    const float side = whole(uniform[0], 2);
    s.paddle = 4;
    s.x = s.last_x = side * 9;
    s.y = s.last_y = 3;
    s.right = 1 - 2 * side;
    s.down = 1;
    fill(s, 1.0f);
  }

  static float play(State& s, int action, const float*, bool& lost) {
    s.paddle = in_grid(s.paddle + float(action == 2) - float(action == 1));
    s.last_x = s.x;
    s.last_y = s.y;
    const float x = in_grid(s.x + s.right), y = s.y + s.down;
    if (x != s.x + s.right) s.right = -s.right;
    float* brick = y >= 1 && y <= 3 ? &s.bricks[(int(y) - 1) * 10 + int(x)] : nullptr;
    const bool hits = brick && *brick > 0, breaks = hits && !s.struck;
    bool bounces = y < 0 || breaks;
    if (breaks) *brick = 0;
    if (y == 9) {
      if (std::count(s.bricks, s.bricks + 30, 0.0f) == 30) fill(s, 1.0f);
      const bool corner = s.x != s.paddle && x == s.paddle;
      if (corner) s.right = -s.right;
      bounces = corner || s.x == s.paddle;
      lost = !bounces;
    }
    s.struck = hits;
    s.x = x;
    if (bounces) s.down = -s.down;  // it stays in its row
    else s.y = y;
    return breaks;
  }

  static void draw(const State& s, uint8_t (*channels)[10][10]) {
    channels[0][9][int(s.paddle)] = 1;
    channels[1][int(s.y)][int(s.x)] = 1;
    channels[2][int(s.last_y)][int(s.last_x)] = 1;
    for (int row = 0; row < 3; ++row)
      for (int x = 0; x < 10; ++x) channels[3][row + 1][x] = s.bricks[row * 10 + x] > 0;
  }

 private:
  static void fill(State& s, float value) { std::fill_n(s.bricks, 30, value); }
};

}  // namespace esper
