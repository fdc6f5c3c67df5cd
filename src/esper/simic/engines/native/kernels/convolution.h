// A convolution without padding, as torch.nn.Conv2d: weight [filters, channels, kernel, kernel], then bias [filters].
//
// Images are [height, width, channels]. The filters, and the channels of all images but observations, fill vectors.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "layer.h"

namespace esper {

class Convolution : public Layer {
 public:
  Convolution(const LayerConfig& config, Rooms& rooms, bool reads_observations)
      : Convolution(config, Shape(config), rooms, reads_observations) {}

  void pack(const float* weight, float* packed) const override {
    for (int f = 0; f < filters_; ++f)
      each_weight([&](ptrdiff_t tap, int channel) {
        packed[weight_ + (tap * channels + channel) * filters_ + f] = *weight;
        packed[transposed_ + (tap * filters_ + f) * channels + channel] = *weight;
        packed[mirrored_ + mirrored(tap, channel) + f] = *weight++;
      });
    std::memcpy(packed + bias_, weight, filters_ * sizeof(float));
  }

  void forward(const float* packed, const float* input, int rows, float* outputs) const override {
    finish(outputs, [&](auto end) {
      for (int r = 0; r < rows; ++r) slide(packed, input + r * in_stride, [=](int n, vec v) { end(r, n, v); });
    });
  }

  void backward(const float* packed, const float* input, int rows, const float* outputs, float* gradients,
                const Target* target) const override {
    for (int r = 0; r < rows; ++r) {
      const float* by_output = output(outputs) + r * out_stride;
      slide_back(input + r * in_stride, by_output, gradients + weight_gradient_);
      add_bias_gradient(by_output, gradients);
      if (target) pass_on(packed, r, by_output, const_cast<float*>(outputs) + image_, *target);
    }
  }

  int most_dots() const override { return most_dots_; }
  int places() const override { return most_dots_ ? places_ : 0; }

  void mark(Dots::Row dots, uint8_t* near) const override {
    for (int dot = 0; dot < dots.count; ++dot) {
      const int place = dots.places[dot] / channels, y = place / in_width_, x = place % in_width_;
      for (int line = std::max(0, y - kernel_ + 1); line <= std::min(y, out_height_ - 1); ++line)
        for (int i = std::max(0, x - kernel_ + 1); i <= std::min(x, out_width_ - 1); ++i) near[line * out_width_ + i] = 1;
    }
  }

  void forward_dots(const float* packed, const Dots& dots, const Busy* busy, int rows, float* outputs) const override {
    finish(outputs, [&](auto end) {
      const auto forward_row = [&](int r, Dots::Row row) {
        add_dots(packed, row, outputs + frame_, [=](int n, vec v) { end(r, n, v); });
      };
      for (int r = 0; r < rows; ++r) forward_row(r, dots[r]);
      if (busy) forward_row(rows, {0, nullptr, nullptr});
    });
  }

  void backward_dots(const Dots& dots, const Busy* busy, int rows, const float* outputs, float* gradients) const override {
    const float* by_outputs = output(outputs);
    float* frame = const_cast<float*>(outputs) + frame_back_;
    for (int r = 0; r < rows; ++r)
      add_dots_back(dots[r], by_outputs + r * out_stride, frame, gradients + mirrored_gradient_);
    if (!busy) {
      for (int r = 0; r < rows; ++r) add_bias_gradient(by_outputs + r * out_stride, gradients);
      return;
    }
    float* by_bias = gradients + bias_gradient_;
    for (int f = 0; f < filters_; f += LANES) {
      vec sum = load(by_bias + f) + load(by_outputs + rows * out_stride + f);
      for (int place = 0; place < places_; ++place) {
        const Busy::Rows near = busy->near(place);
        for (int i = 0; i < near.count; ++i) sum += load(by_outputs + near.rows[i] * out_stride + place * filters_ + f);
      }
      store(by_bias + f, sum);
    }
  }

  void add_up(const float* gradients, float* sum) const override {
    for (int f = 0; f < filters_; ++f)
      each_weight([&](ptrdiff_t tap, int channel) {
        *sum++ += gradients[weight_gradient_ + (tap * channels + channel) * filters_ + f] +
                  gradients[mirrored_gradient_ + mirrored(tap, channel) + f];
      });
    for (int f = 0; f < filters_; ++f) sum[f] += gradients[bias_gradient_ + f];
  }

 private:
  struct Shape {
    int height, width, places, filters;

    explicit Shape(const LayerConfig& config)
        : height(after(config.inputs / config.channels / config.width, config)), width(after(config.width, config)),
          places(height * width), filters(config.outputs / places) {}

    static int after(int length, const LayerConfig& config) { return (length - config.kernel) / config.stride + 1; }
  };

  Convolution(const LayerConfig& config, const Shape& shape, Rooms& rooms, bool reads_observations)
      : Layer(config, ptrdiff_t(shape.filters) * (config.kernel * config.kernel * config.channels + 1), rooms),
        in_width_(config.width), kernel_(config.kernel), stride_(config.stride), out_height_(shape.height),
        out_width_(shape.width), places_(shape.places), filters_(shape.filters), line_(in_width_ * channels),
        framed_width_(in_width_ + kernel_ - 1), framed_((in / line_ + kernel_ - 1) * framed_width_ * filters_),
        most_dots_(reads_observations && stride_ == 1 ? places_ * channels / 3 : 0),
        weight_(rooms.packed.take(size)), transposed_(rooms.packed.take(size)), mirrored_(rooms.packed.take(size)),
        bias_(rooms.packed.take(filters_)), weight_gradient_(rooms.gradients.take(size)),
        mirrored_gradient_(rooms.gradients.take(size)), bias_gradient_(rooms.gradients.take(filters_)),
        frame_(rooms.outputs.take(most_dots_ ? framed_ : 0)),
        frame_back_(rooms.outputs.take(most_dots_ ? framed_ : 0)), image_(rooms.outputs.take(in)) {
    for (int i = 0; i < (most_dots_ ? in : 0); ++i) {
      const int place = i / channels, y = place / in_width_, x = place % in_width_;
      places_of_dots_.push_back((y * framed_width_ + x) * filters_);
    }
  }

  // Where the weights of a channel of a tap begin in the mirrored ones [channels, taps, filters], the last tap first.
  ptrdiff_t mirrored(ptrdiff_t tap, int channel) const {
    return (ptrdiff_t(channel + 1) * kernel_ * kernel_ - 1 - tap) * filters_;
  }

  // Calls `use(tap, channel)` for the weights of a filter, in PyTorch's order.
  template <class Use>
  void each_weight(Use use) const {
    for (int channel = 0; channel < channels; ++channel)
      for (int tap = 0; tap < kernel_ * kernel_; ++tap) use(tap, channel);
  }

  // Every place of the output is a product with what the kernel covers there, `kernel_` pieces of lines of the image.
  template <class End>
  void slide(const float* packed, const float* image, End end) const {
    for (int y = 0; y < out_height_; ++y)
      product(out_width_, filters_, {kernel_ * channels, kernel_, line_}, image + y * stride_ * line_,
              stride_ * channels, 1, packed + weight_, filters_, [bias = packed + bias_](int, int f) { return load(bias + f); },
              [=, this](int x, int f, vec v) { end((y * out_width_ + x) * filters_ + f, v); });
  }

  void slide_back(const float* image, const float* by_output, float* by_weight) const {
    for (int line = 0; line < kernel_; ++line, by_weight += kernel_ * channels * filters_)
      product(kernel_ * channels, filters_, {out_width_, out_height_, stride_ * line_}, image + line * line_, 1,
              stride_ * channels, by_output, filters_,
              [=, this](int tap, int f) { return load(by_weight + tap * filters_ + f); },
              [=, this](int tap, int f, vec v) { store(by_weight + tap * filters_ + f, v); });
  }

  void add_bias_gradient(const float* by_output, float* gradients) const {
    float* by_bias = gradients + bias_gradient_;
    for (int f = 0; f < filters_; f += LANES) {
      vec sum = load(by_bias + f);
      for (int place = 0; place < places_; ++place) sum += load(by_output + place * filters_ + f);
      store(by_bias + f, sum);
    }
  }

  // Where an image is mostly 0, as those of MinAtar are, each dot adds to the places whose kernels cover it.

  // Calls `use(value, place, weight, n)` for each dot of the image and each vector that it adds to, offsets into a frame
  // and into mirrored weights. A frame has the output's places, and around them those where a kernel would reach over the
  // edge of the image.
  template <class Use>
  void each_dot(Dots::Row dots, Use use) const {
    const int lines = kernel_, span = kernel_ * filters_, from_line_to_line = framed_width_ * filters_;
    for (int dot = 0; dot < dots.count; ++dot) {
      const int i = dots.places[dot];
      const float value = dots.values[dot];
      int place = places_of_dots_[i], weight = i % channels * lines * span;
      for (int line = 0; line < lines; ++line, place += from_line_to_line, weight += span)
        for (int n = 0; n < span; n += LANES) use(value, place + n, weight + n);
    }
  }

  // The first place of a line of the output, in a frame.
  float* middle(float* frame, int y) const {
    return frame + ((y + kernel_ - 1) * framed_width_ + kernel_ - 1) * filters_;
  }

  template <class End>
  void add_dots(const float* packed, Dots::Row dots, float* frame, End end) const {
    const float *bias = packed + bias_, *weights = packed + mirrored_;
    const int line = out_width_ * filters_;
    for (int y = 0; y < out_height_; ++y)
      for (int n = 0; n < line; n += filters_) std::copy_n(bias, filters_, middle(frame, y) + n);
    each_dot(dots, [=](float value, int place, int weight) {
      store(frame + place, load(frame + place) + load(weights + weight) * value);
    });
    for (int y = 0; y < out_height_; ++y)
      for (int n = 0; n < line; n += LANES) end(y * line + n, load(middle(frame, y) + n));
  }

  // Around the middle of this `frame` are zeros.
  void add_dots_back(Dots::Row dots, const float* by_output, float* frame, float* by_weight) const {
    const int line = out_width_ * filters_;
    for (int y = 0; y < out_height_; ++y) std::copy_n(by_output + y * line, line, middle(frame, y));
    each_dot(dots, [=](float value, int place, int weight) {
      store(by_weight + weight, load(by_weight + weight) + load(frame + place) * value);
    });
  }

  // Gradients by the image, added up in `sums`, to the target.
  void pass_on(const float* packed, int row, const float* by_output, float* sums, const Target& target) const {
    std::memset(sums, 0, in * sizeof(float));
    for (int y = 0; y < out_height_; ++y)
      for (int tap = 0; tap < kernel_ * kernel_; ++tap) {
        float* to = sums + (y * stride_ + tap / kernel_) * line_ + tap % kernel_ * channels;
        const int step = stride_ * channels;
        product(out_width_, channels, filters_, by_output + y * out_width_ * filters_, filters_, 1,
                packed + transposed_ + ptrdiff_t(tap) * filters_ * channels, channels,
                [=](int x, int channel) { return load(to + x * step + channel); },
                [=](int x, int channel, vec v) { store(to + x * step + channel, v); });
      }
    target.with(in_stride, [&](auto end) {
      for (int n = 0; n < in; n += LANES) end(row, n, load(sums + n));
    });
  }

  const int in_width_, kernel_, stride_, out_height_, out_width_, places_, filters_;
  const ptrdiff_t line_;           // floats of a line of the image
  const int framed_width_;         // places of a line of a frame
  const ptrdiff_t framed_;         // floats of a frame
  const int most_dots_;            // so many that it is worth looking at them alone
  std::vector<int> places_of_dots_;    // where each number of an image begins to count in a frame
  // [taps, channels, filters], [taps, filters, channels], [channels, taps, filters] from the last tap to the first.
  const ptrdiff_t weight_, transposed_, mirrored_, bias_;
  const ptrdiff_t weight_gradient_, mirrored_gradient_, bias_gradient_;
  const ptrdiff_t frame_, frame_back_, image_;
};

}  // namespace esper
