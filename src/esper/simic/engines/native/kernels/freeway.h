// esper.envs.device.minatar.freeway for one copy at a time.
#pragma once
#include <cmath>

#include "minatar.h"

namespace esper {

struct FreewayState {
  float last_action, row, pause, time_left, column[8], timer[8], speed[8];
};

struct Freeway : MinAtar<Freeway, FreewayState, 7, 16, 16> {
  using State = FreewayState;

  static void start(const float* uniform, State& s) {
    s.row = 9;
    s.pause = 3;
    s.time_left = 2500;
    draw_speeds(s, uniform);
  }

  static float play(State& s, int action, const float* uniform, bool& lost) {
    if (action > 0 && s.pause == 0) {
      s.pause = 3;
      s.row = in_grid(s.row + (action == 1 ? -1.0f : 1.0f));
    }
    const bool across = s.row == 0;
    if (across) {
      draw_speeds(s, uniform);
      s.row = 9;
    }
    for (int lane = 0; lane < 8; ++lane) {
      bool hit = s.column[lane] == 4;
      if (s.timer[lane] == 0) {
        s.timer[lane] = std::fabs(s.speed[lane]);
        s.column[lane] = around(s.column[lane] + direction(s.speed[lane]));
        hit |= s.column[lane] == 4;
      } else {
        --s.timer[lane];
      }
      if (hit && s.row == float(lane + 1)) s.row = 9;
    }
    s.pause = std::max(s.pause - 1, 0.0f);
    lost = --s.time_left < 0;
    return across;
  }

  static void draw(const State& s, uint8_t (*channels)[10][10]) {
    channels[0][int(s.row)][4] = 1;
    for (int lane = 0; lane < 8; ++lane) {
      const int speed = int(std::fabs(s.speed[lane]));
      channels[1][lane + 1][int(s.column[lane])] = 1;
      if (speed) channels[1 + speed][lane + 1][int(around(s.column[lane] - direction(s.speed[lane])))] = 1;
    }
  }

 private:
  static float direction(float speed) { return speed > 0 ? 1.0f : -1.0f; }
  static float around(float column) { return column < 0 ? 9.0f : column > 9 ? 0.0f : column; }

  static void draw_speeds(State& s, const float* uniform) {
    for (int lane = 0; lane < 8; ++lane) {
      s.timer[lane] = 1 + whole(uniform[lane], 5);
      s.speed[lane] = uniform[8 + lane] < 0.5f ? -s.timer[lane] : s.timer[lane];
    }
  }
};

}  // namespace esper
