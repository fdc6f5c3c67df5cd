// A convolution without padding, as torch.nn.Conv2d: weight [filters, channels, kernel, kernel], then bias [filters].
//
// Images are [height, width, channels]. The filters, and the channels of all images but observations, fill vectors.
#pragma once
#include <algorithm>
#include <cstring>

#include "layer.h"

namespace esper {

class Convolution : public Layer {
 public:
  Convolution(const LayerConfig& config, Rooms& rooms) : Convolution(config, Shape(config), rooms) {}

  void pack(const float* weight, float* packed) const override {
    for (int f = 0; f < filters_; ++f)
      each_weight([&](ptrdiff_t tap, int channel) {
        packed[weight_ + (tap * channels + channel) * filters_ + f] = *weight;
        packed[transposed_ + (tap * filters_ + f) * channels + channel] = *weight++;
      });
    std::memcpy(packed + bias_, weight, filters_ * sizeof(float));
  }

  void forward(const float* packed, const float* input, int rows, float* outputs) const override {
    finish(outputs, [&](auto end) {
      for (int r = 0; r < rows; ++r) {
        const auto end_of_row = [&](ptrdiff_t place, int f, vec v) { end(r, int(place) * filters_ + f, v); };
        if (find_dots(input + r * in_stride, outputs + dots_ + r * (most_dots_ + 1)))
          add_dots(packed, input + r * in_stride, r, outputs, end_of_row);
        else
          slide(packed, input + r * in_stride, end_of_row);
      }
    });
  }

  void backward(const float* packed, const float* input, int rows, const float* outputs, float* gradients,
                const Target* target) const override {
    float *by_weight = gradients + weight_gradient_, *by_bias = gradients + bias_gradient_;
    for (int r = 0; r < rows; ++r) {
      const float *image = input + r * in_stride, *by_output = output(outputs) + r * out_stride;
      if (outputs[dots_ + r * (most_dots_ + 1)] >= 0)
        add_dots_back(image, r, const_cast<float*>(outputs), by_weight);
      else
        slide_back(image, by_output, by_weight);
      for (int f = 0; f < filters_; f += LANES) {
        vec sum = load(by_bias + f);
        for (int place = 0; place < places_; ++place) sum += load(by_output + place * filters_ + f);
        store(by_bias + f, sum);
      }
      if (target) pass_on(packed, r, by_output, const_cast<float*>(outputs) + image_, *target);
    }
  }

  void add_up(const float* gradients, float* sum) const override {
    for (int f = 0; f < filters_; ++f)
      each_weight([&](ptrdiff_t tap, int channel) {
        *sum++ += gradients[weight_gradient_ + (tap * channels + channel) * filters_ + f];
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

  Convolution(const LayerConfig& config, const Shape& shape, Rooms& rooms)
      : Layer(config, ptrdiff_t(shape.filters) * (config.kernel * config.kernel * config.channels + 1), rooms),
        in_width_(config.width), kernel_(config.kernel), stride_(config.stride), out_height_(shape.height),
        out_width_(shape.width), places_(shape.places), filters_(shape.filters), line_(in_width_ * channels),
        framed_width_(in_width_ + kernel_ - 1), framed_((in / line_ + kernel_ - 1) * framed_width_ * filters_),
        most_dots_(stride_ == 1 ? places_ * channels / 3 : 0), weight_(rooms.packed.take(size)),
        transposed_(rooms.packed.take(size)), bias_(rooms.packed.take(filters_)),
        weight_gradient_(rooms.gradients.take(size)), bias_gradient_(rooms.gradients.take(filters_)),
        dots_(rooms.outputs.take(rooms.rows * (most_dots_ + 1))), frame_(rooms.outputs.take(most_dots_ ? framed_ : 0)),
        image_(rooms.outputs.take(in)) {}

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
              [=, this](int x, int f, vec v) { end(y * out_width_ + x, f, v); });
  }

  void slide_back(const float* image, const float* by_output, float* by_weight) const {
    for (int line = 0; line < kernel_; ++line, by_weight += kernel_ * channels * filters_)
      product(kernel_ * channels, filters_, {out_width_, out_height_, stride_ * line_}, image + line * line_, 1,
              stride_ * channels, by_output, filters_,
              [=, this](int tap, int f) { return load(by_weight + tap * filters_ + f); },
              [=, this](int tap, int f, vec v) { store(by_weight + tap * filters_ + f, v); });
  }

  // Where an image is mostly 0, as those of MinAtar are, only its dots count: each adds to the places whose kernels cover
  // it. Fills `dots` with their number, or -1 where there are too many, and where they are.
  bool find_dots(const float* image, float* dots) const {
    dots[0] = -1;
    if (!most_dots_) return false;
    int count = 0;
    for (int i = 0; i < in && count <= most_dots_; ++i)
      if (image[i] != 0) {
        if (count < most_dots_) dots[1 + count] = float(i);
        ++count;
      }
    if (count > most_dots_) return false;
    dots[0] = float(count);
    return true;
  }

  // Calls `use(value, place, weight)` for each dot of the row and each place whose kernel covers it: offsets into a frame
  // and into weights. A frame has the output's places, and around them those where a kernel would reach over the edge.
  template <class Use>
  void each_dot(const float* image, const float* dots, Use use) const {
    for (int dot = 1; dot <= int(dots[0]); ++dot) {
      const int i = int(dots[dot]), place = i / channels, y = place / in_width_, x = place - y * in_width_;
      const float value = image[i];
      ptrdiff_t at = (ptrdiff_t(y) * framed_width_ + x) * filters_;
      ptrdiff_t weight = (ptrdiff_t(kernel_ * kernel_ - 1) * channels + i - place * channels) * filters_;
      for (int line = 0; line < kernel_; ++line, at += (framed_width_ - kernel_) * filters_)
        for (int tap = 0; tap < kernel_; ++tap, at += filters_, weight -= channels * filters_) use(value, at, weight);
    }
  }

  // The place of the output that is in the middle of a frame.
  float* framed(float* frame, int y) const {
    return frame + ((y + kernel_ - 1) * framed_width_ + kernel_ - 1) * filters_;
  }

  template <class End>
  void add_dots(const float* packed, const float* image, int row, float* outputs, End end) const {
    float* frame = outputs + frame_;
    std::memset(frame, 0, framed_ * sizeof(float));
    each_dot(image, outputs + dots_ + row * (most_dots_ + 1), [&](float value, ptrdiff_t place, ptrdiff_t weight) {
      for (int f = 0; f < filters_; f += LANES)
        store(frame + place + f, load(frame + place + f) + load(packed + weight_ + weight + f) * value);
    });
    for (int y = 0; y < out_height_; ++y)
      for (int x = 0; x < out_width_; ++x)
        for (int f = 0; f < filters_; f += LANES)
          end(y * out_width_ + x, f, load(framed(frame, y) + x * filters_ + f) + load(packed + bias_ + f));
  }

  void add_dots_back(const float* image, int row, float* outputs, float* by_weight) const {
    float* frame = outputs + frame_;
    const float* by_output = output(outputs) + row * out_stride;
    std::memset(frame, 0, framed_ * sizeof(float));
    for (int y = 0; y < out_height_; ++y, by_output += out_width_ * filters_)
      std::memcpy(framed(frame, y), by_output, out_width_ * filters_ * sizeof(float));
    each_dot(image, outputs + dots_ + row * (most_dots_ + 1), [&](float value, ptrdiff_t place, ptrdiff_t weight) {
      for (int f = 0; f < filters_; f += LANES)
        store(by_weight + weight + f, load(by_weight + weight + f) + load(frame + place + f) * value);
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
  const int most_dots_;            // that are worth looking at by themselves
  const ptrdiff_t weight_, transposed_, bias_;        // [taps, channels, filters], [taps, filters, channels], [filters]
  const ptrdiff_t weight_gradient_, bias_gradient_;   // [taps, channels, filters], [filters]
  const ptrdiff_t dots_, frame_, image_;              // by row the number of dots and the dots; one frame; one image
};

}  // namespace esper
