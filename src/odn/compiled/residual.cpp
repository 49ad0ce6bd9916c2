// Forward and backward pass of a thin residual network in training, on one core of a processor.
//
// Maps are (C, H, W, N): the images of a batch lie side by side, and fill vector registers whatever the number of channels, where a
// library's kernels want channels by the eight or the sixteen. What is computed is what odn.models.resnet computes in train mode. It is
// compiled when odn is installed (hatch_build.py), for processors with AVX2, and needs nothing but the C library.

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

namespace {

constexpr int WIDTH = 8;  // images of a vector
typedef float Lanes __attribute__((vector_size(4 * WIDTH)));
constexpr int BLOCK = 8;  // sums that are in registers at once
constexpr size_t LINE = 64;

constexpr int least(int a, int b) { return a < b ? a : b; }
constexpr int most(int a, int b) { return a > b ? a : b; }
constexpr int vectors_beside(int channels) { return most(1, BLOCK / channels); }

inline float total(Lanes x) {
  float sum = 0;
  for (int i = 0; i < WIDTH; i++) sum += x[i];
  return sum;
}

template <int B> struct Constant {
  static constexpr int value = B;
};

// Calls f with the first of each block of B, B / 2, … 1 of the channels (or vectors), and with the size of that block as a constant.
template <int B, typename F> inline void in_blocks(int count, F f, int first = 0) {
  for (; count - first >= B; first += B) f(first, Constant<B>());
  if constexpr (B > 1) in_blocks<B / 2>(count, f, first);
}

template <typename T> T* allocated(size_t count) {
  return static_cast<T*>(aligned_alloc(LINE, (count * sizeof(T) + LINE - 1) / LINE * LINE));
}

struct Map {
  int channels = 0, height = 0, width = 0, vectors = 0;  // of a pixel
  Lanes *value = nullptr, *gradient = nullptr;
  bool reached = false;  // the gradient holds something of this pass

  bool make(int c, int h, int w, int v) {
    channels = c, height = h, width = w, vectors = v;
    value = allocated<Lanes>(c * plane()), gradient = allocated<Lanes>(c * plane());
    return value && gradient;
  }
  void release() { free(value), free(gradient); }
  size_t plane() const { return size_t(height) * width * vectors; }
  size_t at(int c, int row, int column) const { return ((size_t(c) * height + row) * width + column) * vectors; }
  void add(size_t i, Lanes x) { gradient[i] = reached ? gradient[i] + x : x; }
};

// What a layer has of the module's: weights (channels last), their gradients, and the running statistics that it keeps.
struct Tensors {
  const float *kernel, *gamma, *beta;
  float *d_kernel, *d_gamma, *d_beta, *running_mean, *running_variance;
  int64_t* n_batches;
};

// A convolution with K x K kernels, its BatchNorm, and what may follow: a sum, a rectifier. K of 0: the mean of 2 x 2 pixels instead.
struct Layer {
  int kernel_size = 0, stride = 1;
  bool rectifies = false, is_first = false;
  Map *x = nullptr, *added = nullptr, z, y;
  float *kernel = nullptr, *d_kernel = nullptr;  // (out, in, K, K)
  float *mean = nullptr, *scale = nullptr;       // of z; scale is the inverse of its deviation
  Tensors tensors = {};

  bool make(int k, Map* x_, Map* added_, int out, int stride_, bool rectifies_, bool is_first_) {
    kernel_size = k, x = x_, added = added_, stride = stride_, rectifies = rectifies_, is_first = is_first_;
    const int height = (x->height - 1) / stride + 1, width = (x->width - 1) / stride + 1;
    if (k == 0) return y.make(x->channels, height, width, x->vectors);
    kernel = allocated<float>(weights(out)), d_kernel = allocated<float>(weights(out));
    mean = allocated<float>(out), scale = allocated<float>(out);
    return kernel && d_kernel && mean && scale && z.make(out, height, width, x->vectors) && y.make(out, height, width, x->vectors);
  }
  void release() { free(kernel), free(d_kernel), free(mean), free(scale), z.release(), y.release(); }
  size_t weights(int out) const { return size_t(out) * x->channels * kernel_size * kernel_size; }

  // Calls f with the place of each weight in (out, K, K, in), as the module has it, and in (out, in, K, K).
  template <typename F> void over_weights(F f) const {
    const int squares = kernel_size * kernel_size, n_in = x->channels;
    for (int out = 0; out < z.channels; out++)
      for (int square = 0; square < squares; square++)
        for (int in = 0; in < n_in; in++) f((size_t(out) * squares + square) * n_in + in, (size_t(out) * n_in + in) * squares + square);
  }

  void forward(float epsilon, float momentum) {
    y.reached = false;
    if (kernel_size == 0) return pool();
    over_weights([&](size_t theirs, size_t ours) { kernel[ours] = tensors.kernel[theirs]; });
    in_blocks<BLOCK>(z.channels, [&](int first, auto size) {
      if (kernel_size == 3) convolve<3, size.value>(first);
      else convolve<1, size.value>(first);
    });
    normalise(epsilon, momentum);
  }

  void backward() {
    if (kernel_size == 0) return spread();
    differentiate_norm();
    in_blocks<BLOCK / 2>(z.channels, [&](int first, auto size) {
      if (kernel_size == 3) differentiate_kernel<3, size.value>(first);
      else differentiate_kernel<1, size.value>(first);
    });
    over_weights([&](size_t theirs, size_t ours) { tensors.d_kernel[theirs] = d_kernel[ours]; });
    if (is_first) return;
    in_blocks<BLOCK>(x->channels, [&](int first, auto size) {
      if (kernel_size == 3) differentiate_input<3, size.value>(first);
      else differentiate_input<1, size.value>(first);
    });
    x->reached = true;
  }

  // Sums for B channels, and for as many vectors of a pixel as leave registers free.
  template <int K, int B> void convolve(int first) {
    constexpr int PAD = K / 2;
    const size_t next = size_t(x->channels) * K * K, plane = x->plane();  // from a channel's kernels, and its map, to those of the next
    for (int row = 0; row < z.height; row++)
      for (int column = 0; column < z.width; column++)
        in_blocks<vectors_beside(B)>(z.vectors, [&](int part, auto size) {
          constexpr int V = decltype(size)::value;
          Lanes sums[B][V] = {};
          const int top = row * stride - PAD, left = column * stride - PAD;
          const int i0 = most(0, -top), i1 = least(K, x->height - top), j0 = most(0, -left), j1 = least(K, x->width - left);
          for (int c = 0; c < x->channels; c++)
            for (int i = i0; i < i1; i++) {
              const Lanes* here = x->value + c * plane + (size_t(top + i) * x->width + left + j0) * x->vectors + part;
              const float* weight = kernel + first * next + (c * K + i) * K;
              for (int j = j0; j < j1; j++, here += x->vectors)
                for (int b = 0; b < B; b++)
                  for (int k = 0; k < V; k++) sums[b][k] += here[k] * weight[b * next + j];
            }
          for (int b = 0; b < B; b++)
            for (int k = 0; k < V; k++) z.value[z.at(first + b, row, column) + part + k] = sums[b][k];
        });
  }

  template <int K, int B> void differentiate_input(int first) {
    constexpr int PAD = K / 2;
    const size_t next = size_t(x->channels) * K * K, plane = z.plane();
    for (int row = 0; row < x->height; row++)
      for (int column = 0; column < x->width; column++)
        in_blocks<vectors_beside(B)>(z.vectors, [&](int part, auto size) {
          constexpr int V = decltype(size)::value;
          Lanes sums[B][V] = {};
          for (int i = 0; i < K; i++) {
            const int above = row + PAD - i;
            if (above < 0 || above % stride || above / stride >= z.height) continue;
            for (int j = 0; j < K; j++) {
              const int before = column + PAD - j;
              if (before < 0 || before % stride || before / stride >= z.width) continue;
              const Lanes* here = z.gradient + z.at(0, above / stride, before / stride) + part;
              const float* weight = kernel + (size_t(first) * K + i) * K + j;
              for (int c = 0; c < z.channels; c++, here += plane, weight += next)
                for (int b = 0; b < B; b++)
                  for (int k = 0; k < V; k++) sums[b][k] += here[k] * weight[b * K * K];
            }
          }
          for (int b = 0; b < B; b++)
            for (int k = 0; k < V; k++) x->add(x->at(first + b, row, column) + part + k, sums[b][k]);
        });
  }

  template <int K, int B> void differentiate_kernel(int first) {
    constexpr int PAD = K / 2;
    const size_t plane = z.plane();
    for (int c = 0; c < x->channels; c++)
      for (int i = 0; i < K; i++) {
        Lanes sums[B][K] = {};
        for (int row = 0; row < z.height; row++) {
          const int above = row * stride + i - PAD;
          if (above < 0 || above >= x->height) continue;
          const Lanes *line = x->value + x->at(c, above, 0), *given = z.gradient + z.at(first, row, 0);
          for (int column = 0; column < z.width; column++)
            for (int part = 0; part < z.vectors; part++, given++) {
              Lanes near[K];
              for (int j = 0; j < K; j++) {
                const int before = column * stride + j - PAD;
                near[j] = before >= 0 && before < x->width ? line[before * x->vectors + part] : Lanes{};
              }
              for (int b = 0; b < B; b++)
                for (int j = 0; j < K; j++) sums[b][j] += given[b * plane] * near[j];
            }
        }
        for (int b = 0; b < B; b++)
          for (int j = 0; j < K; j++) d_kernel[((size_t(first + b) * x->channels + c) * K + i) * K + j] = total(sums[b][j]);
      }
  }

  void normalise(float epsilon, float momentum) {
    const size_t plane = z.plane();
    const float n = float(plane * WIDTH);
    for (int c = 0; c < z.channels; c++) {
      const Lanes *in = z.value + c * plane, *more = added ? added->value + c * plane : nullptr;
      Lanes *out = y.value + c * plane, sum = {}, squares = {};
      for (size_t i = 0; i < plane; i++) sum += in[i];
      mean[c] = total(sum) / n;
      for (size_t i = 0; i < plane; i++) squares += (in[i] - mean[c]) * (in[i] - mean[c]);
      const float square = total(squares);
      scale[c] = 1 / __builtin_sqrtf(square / n + epsilon);
      const float slope = tensors.gamma[c] * scale[c], offset = tensors.beta[c] - mean[c] * slope;
      for (size_t i = 0; i < plane; i++) {
        Lanes result = in[i] * slope + offset;
        if (more) result += more[i];
        out[i] = rectifies ? (result > 0 ? result : Lanes{}) : result;
      }
      tensors.running_mean[c] += momentum * (mean[c] - tensors.running_mean[c]);
      tensors.running_variance[c] += momentum * (square / (n - 1) - tensors.running_variance[c]);
    }
    ++*tensors.n_batches;
  }

  void differentiate_norm() {
    const size_t plane = z.plane();
    const float n = float(plane * WIDTH);
    for (int c = 0; c < z.channels; c++) {
      const Lanes *in = z.value + c * plane, *out = y.value + c * plane, *given = y.gradient + c * plane;
      Lanes *back = z.gradient + c * plane, sum = {}, products = {};
      for (size_t i = 0; i < plane; i++) {
        const Lanes here = rectifies ? (out[i] > 0 ? given[i] : Lanes{}) : given[i];
        if (added) added->add(c * plane + i, here);
        back[i] = here;
        sum += here;
        products += here * (in[i] - mean[c]);
      }
      const float d_beta = total(sum), d_gamma = total(products) * scale[c];
      tensors.d_beta[c] = d_beta, tensors.d_gamma[c] = d_gamma;
      const float slope = tensors.gamma[c] * scale[c], constant = d_beta / n, linear = d_gamma * scale[c] / n;
      for (size_t i = 0; i < plane; i++) back[i] = slope * (back[i] - constant - (in[i] - mean[c]) * linear);
    }
    if (added) added->reached = true;
  }

  // Calls f with each pixel of x, that of y which holds its mean, and the share that it has there: edges have fewer than four.
  template <typename F> void over_pixels(F f) {
    for (int c = 0; c < y.channels; c++)
      for (int row = 0; row < y.height; row++)
        for (int column = 0; column < y.width; column++) {
          const int bottom = least(2 * row + 2, x->height), right = least(2 * column + 2, x->width);
          const float share = 1.f / float((bottom - 2 * row) * (right - 2 * column));
          for (int i = 2 * row; i < bottom; i++)
            for (int j = 2 * column; j < right; j++) f(x->at(c, i, j), y.at(c, row, column), share, i == 2 * row && j == 2 * column);
        }
  }

  void pool() {
    over_pixels([&](size_t from, size_t to, float share, bool is_first_pixel) {
      for (int k = 0; k < y.vectors; k++) y.value[to + k] = (is_first_pixel ? Lanes{} : y.value[to + k]) + share * x->value[from + k];
    });
  }

  void spread() {
    over_pixels([&](size_t from, size_t to, float share, bool) {
      for (int k = 0; k < y.vectors; k++) x->add(from + k, share * y.gradient[to + k]);
    });
    x->reached = true;
  }
};

struct Network {
  int n_layers;
  float epsilon, momentum;
  Map image;
  Layer* layers;
  Map& map(int number) { return number ? layers[number - 1].y : image; }
};

constexpr int COLUMNS = 6;  // of a layer: kernel size, map that it reads, map that is added or -1, channels, stride, whether it rectifies

}  // namespace

// Returns the digest of all the C++ here, as the build gives it, so that a library that is older can be refused.
extern "C" const char* odn_source() { return SOURCE; }

// Map 0 is the image, map i what layer i, counted from 1, computes.
extern "C" void odn_release(void* made) {
  Network* network = static_cast<Network*>(made);
  for (int i = 0; i < network->n_layers; i++) network->layers[i].release();
  network->image.release();
  free(network->layers);
  free(network);
}

// Returns the room for a pass of n_images (a multiple of 8) through these layers, or null where memory lacks.
extern "C" void* odn_make(const int* table, int n_layers, int n_images, int channels, int height, int width, float epsilon,
                          float momentum) {
  Network* network = static_cast<Network*>(malloc(sizeof(Network)));
  Layer* layers = allocated<Layer>(n_layers);
  if (!network || !layers) return free(network), free(layers), nullptr;
  *network = {n_layers, epsilon, momentum, Map(), layers};
  for (int i = 0; i < n_layers; i++) layers[i] = Layer();
  bool made = network->image.make(channels, height, width, n_images / WIDTH);
  for (int i = 0; i < n_layers && made; i++) {
    const int* row = table + i * COLUMNS;
    Map* added = row[2] < 0 ? nullptr : &network->map(row[2]);
    made = layers[i].make(row[0], &network->map(row[1]), added, row[3], row[4], row[5] != 0, row[1] == 0);
  }
  if (!made) return odn_release(network), nullptr;
  return network;
}

// images: (N, C, H, W) with these strides; tensors: nine pointers a layer, as in Tensors; features: (N, channels of the last map), means.
extern "C" void odn_forward(void* made, const float* images, const int64_t* strides, void* const* tensors, float* features) {
  Network* network = static_cast<Network*>(made);
  Map& image = network->image;
  for (int c = 0; c < image.channels; c++)
    for (int row = 0; row < image.height; row++)
      for (int column = 0; column < image.width; column++) {
        const float* from = images + c * strides[1] + row * strides[2] + column * strides[3];
        Lanes* to = image.value + image.at(c, row, column);
        for (int n = 0; n < image.vectors * WIDTH; n++) to[n / WIDTH][n % WIDTH] = from[n * strides[0]];
      }
  for (int i = 0; i < network->n_layers; i++) {
    Layer& layer = network->layers[i];
    void* const* own = tensors + 9 * i;
    layer.tensors = {static_cast<const float*>(own[0]), static_cast<const float*>(own[1]), static_cast<const float*>(own[2]),
                     static_cast<float*>(own[3]), static_cast<float*>(own[4]), static_cast<float*>(own[5]),
                     static_cast<float*>(own[6]), static_cast<float*>(own[7]), static_cast<int64_t*>(own[8])};
    layer.forward(network->epsilon, network->momentum);
  }
  const Map& last = network->map(network->n_layers);
  const int pixels = last.height * last.width;
  for (int c = 0; c < last.channels; c++)
    for (int part = 0; part < last.vectors; part++) {
      Lanes sum = {};
      for (int i = 0; i < pixels; i++) sum += last.value[last.at(c, 0, i) + part];
      for (int k = 0; k < WIDTH; k++) features[(part * WIDTH + k) * last.channels + c] = sum[k] / float(pixels);
    }
}

// d_features: the gradient of the loss at the features of the last forward pass; the gradients of the tensors are written.
extern "C" void odn_backward(void* made, const float* d_features) {
  Network* network = static_cast<Network*>(made);
  Map& last = network->map(network->n_layers);
  const int pixels = last.height * last.width;
  for (int c = 0; c < last.channels; c++)
    for (int part = 0; part < last.vectors; part++) {
      Lanes each;
      for (int k = 0; k < WIDTH; k++) each[k] = d_features[(part * WIDTH + k) * last.channels + c] / float(pixels);
      for (int i = 0; i < pixels; i++) last.gradient[last.at(c, 0, i) + part] = each;
    }
  for (int i = network->n_layers; i-- > 0;) network->layers[i].backward();
}
