// esper.envs.device.minatar.space_invaders for one copy at a time.
#pragma once
#include <cmath>

#include "minatar.h"

namespace esper {

struct SpaceInvadersState {
  float last_action, cannon, right, interval, move_timer, bomb_timer, cool_down, shots[100], bombs[100],
      aliens[100];
};

struct SpaceInvaders : MinAtar<SpaceInvaders, SpaceInvadersState, 6, 0, 0> {
  using State = SpaceInvadersState;

  static void start(const float*, State& s) {
    s.cannon = 5;
    s.interval = s.move_timer = 12;
    s.bomb_timer = 10;
    begin_wave(s);
  }

  static float play(State& s, int action, const float*, bool& lost) {
    if (action == 3 && s.cool_down == 0) {
      s.shots[90 + int(s.cannon)] = 1;
      s.cool_down = 5;
    }
    s.cannon = in_grid(s.cannon + float(action == 2) - float(action == 1));
    const int cannon = int(s.cannon), here = 90 + cannon;
    std::copy(s.shots + 10, s.shots + 100, s.shots);
    std::fill_n(s.shots + 90, 10, 0.0f);
    std::copy_backward(s.bombs, s.bombs + 90, s.bombs + 100);
    std::fill_n(s.bombs, 10, 0.0f);
    lost = s.bombs[here] > 0 || s.aliens[here] > 0;
    if (s.move_timer == 0) {
      s.move_timer = std::min(float(100 - std::count(s.aliens, s.aliens + 100, 0.0f)), s.interval);
      lost |= move(s);
      lost |= s.aliens[here] > 0;
    }
    if (s.bomb_timer == 0) {
      s.bomb_timer = 10;
      drop_bomb(s, cannon);
    }
    float kills = 0;
    for (int i = 0; i < 100; ++i) {
      float &alien = s.aliens[i], &shot = s.shots[i];
      if (alien > 0 && shot > 0) alien = shot = 0, ++kills;
    }
    --s.move_timer;
    --s.bomb_timer;
    s.cool_down = std::max(s.cool_down - 1, 0.0f);
    if (std::count(s.aliens, s.aliens + 100, 0.0f) == 100) {
      s.interval = std::max(s.interval - 1, 6.0f);
      begin_wave(s);
    }
    return kills;
  }

  static void draw(const State& s, uint8_t (*channels)[10][10]) {
    channels[0][9][int(s.cannon)] = 1;
    for (int row = 0, i = 0; row < 10; ++row)
      for (int x = 0; x < 10; ++x, ++i) {
        channels[1][row][x] = channels[s.right > 0 ? 3 : 2][row][x] = s.aliens[i] > 0;
        channels[4][row][x] = s.shots[i] > 0;
        channels[5][row][x] = s.bombs[i] > 0;
      }
  }

 private:
  static void begin_wave(State& s) {
    for (int row = 0; row < 4; ++row) std::fill_n(s.aliens + row * 10 + 2, 6, 1.0f);
  }

  // To the side, or down at the edge: whether that is the end.
  static bool move(State& s) {
    bool at_edge = false;
    for (int row = 0; row < 10; ++row) at_edge |= s.aliens[row * 10 + (s.right > 0 ? 9 : 0)] > 0;
    if (at_edge) {
      const bool lost = std::count(s.aliens + 90, s.aliens + 100, 0.0f) < 10;
      s.right = 1 - s.right;
      std::rotate(s.aliens, s.aliens + 90, s.aliens + 100);
      return lost;
    }
    for (float* row = s.aliens; row < s.aliens + 100; row += 10)
      std::rotate(row, s.right > 0 ? row + 9 : row + 1, row + 10);
    return false;
  }

  // By the lowest alien in the column nearest to the cannon, left of two.
  static void drop_bomb(State& s, int cannon) {
    for (int distance = 0; distance < 10; ++distance)
      for (int column : {cannon - distance, cannon + distance})
        for (int row = 9; row >= 0 && inside(float(column)); --row)
          if (s.aliens[row * 10 + column] > 0) {
            s.bombs[row * 10 + column] = 1;
            return;
          }
  }
};

}  // namespace esper
