// An epoch of training of a thin residual network in compiled C++: batches, forward pass, loss, backward pass, and a step of SGD or Muon.
//
// Maps are (C, H, W, N): the 32 images of a batch lie side by side, and fill vector registers whatever the number of channels. It computes
// what odn.models.resnet computes in training (a small image's stem, basic blocks, an average pool in the shortcut); nothing is augmented
// or averaged, and BatchNorm keeps no running statistics. Weights and their gradients are flat, in the order of the module's parameters.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

namespace {

constexpr int N = 32;  // images of a batch
#ifdef __AVX512F__
constexpr int WIDTH = 16;  // images of a vector
#else
constexpr int WIDTH = 8;
#endif
using Lanes = float __attribute__((vector_size(4 * WIDTH)));
constexpr int PIXEL = N / WIDTH;  // vectors of a pixel
constexpr int BLOCK = 8;          // sums that are in registers at once
constexpr float EPSILON = 1e-5f, MOMENTUM = 0.9f, DECAY = 5e-4f, MUON_DECAY = 0.02f;

float total(Lanes x) {
  float sum = 0;
  for (int i = 0; i < WIDTH; i++) sum += x[i];
  return sum;
}

struct Map {
  int channels, height, width;
  std::vector<Lanes> value, gradient;
  bool reached = false;  // the gradient holds something of this step

  Map(int c, int h, int w) : channels(c), height(h), width(w), value(size_t(c) * h * w * PIXEL), gradient(value.size()) {}
  size_t plane() const { return size_t(height) * width * PIXEL; }
  size_t at(int c, int row, int column) const { return ((size_t(c) * height + row) * width + column) * PIXEL; }
  void add(size_t i, Lanes x) { gradient[i] = reached ? gradient[i] + x : x; }
};

// Calls f with 0, B, 2 B, … and the number of channels from there, B or what is left, as a constant.
template <int B, typename F> void in_blocks(int channels, F f) {
  for (int first = 0; first < channels;) {
    if (channels - first >= B) {
      f(first, std::integral_constant<int, B>());
      first += B;
    } else if constexpr (B > 1) {
      in_blocks<B / 2>(channels - first, [&](int offset, auto size) { f(first + offset, size); });
      return;
    }
  }
}

struct Part {
  virtual ~Part() = default;
  virtual void forward() = 0;
  virtual void backward() = 0;
};

struct Weights {
  const float* value;
  float* gradient;
};

// A convolution with K x K kernels, its BatchNorm, and what may follow: a sum, a rectifier.
template <int K> struct Layer : Part {
  static constexpr int PAD = K / 2;
  Map *x, *added, z, y;
  int stride;
  bool rectifies, is_first;
  Weights kernel, gamma, beta;
  std::vector<float> mean, scale;  // of z; scale is the inverse of its deviation

  Layer(Map* x_, int out, int stride_, Map* added_, bool rectifies_, bool is_first_)
      : x(x_), added(added_), z(out, (x_->height - 1) / stride_ + 1, (x_->width - 1) / stride_ + 1), y(out, z.height, z.width),
        stride(stride_), rectifies(rectifies_), is_first(is_first_), mean(out), scale(out) {}

  void forward() override {
    in_blocks<BLOCK>(z.channels, [&](int first, auto size) { convolve<size>(first); });
    const size_t plane = z.plane();
    for (int c = 0; c < z.channels; c++) {
      const Lanes *in = &z.value[c * plane], *more = added ? &added->value[c * plane] : nullptr;
      Lanes *out = &y.value[c * plane], sum{}, squares{};
      for (size_t i = 0; i < plane; i++) sum += in[i];
      mean[c] = total(sum) / (plane * WIDTH);
      for (size_t i = 0; i < plane; i++) squares += (in[i] - mean[c]) * (in[i] - mean[c]);
      scale[c] = 1 / std::sqrt(total(squares) / (plane * WIDTH) + EPSILON);
      const float slope = gamma.value[c] * scale[c], offset = beta.value[c] - mean[c] * slope;
      for (size_t i = 0; i < plane; i++) {
        Lanes out_i = in[i] * slope + offset;
        if (more) out_i += more[i];
        out[i] = rectifies ? (out_i > 0 ? out_i : Lanes{}) : out_i;
      }
    }
    y.reached = false;
  }

  void backward() override {
    const size_t plane = z.plane();
    for (int c = 0; c < z.channels; c++) {
      const Lanes *in = &z.value[c * plane], *out = &y.value[c * plane], *given = &y.gradient[c * plane];
      Lanes *back = &z.gradient[c * plane], sum{}, products{};
      for (size_t i = 0; i < plane; i++) {
        const Lanes here = rectifies ? (out[i] > 0 ? given[i] : Lanes{}) : given[i];
        if (added) added->add(c * plane + i, here);
        back[i] = here;
        sum += here;
        products += here * (in[i] - mean[c]);
      }
      beta.gradient[c] = total(sum);
      gamma.gradient[c] = total(products) * scale[c];
      const float n = plane * WIDTH, slope = gamma.value[c] * scale[c];
      const float constant = beta.gradient[c] / n, linear = gamma.gradient[c] * scale[c] / n;
      for (size_t i = 0; i < plane; i++) back[i] = slope * (back[i] - constant - (in[i] - mean[c]) * linear);
    }
    if (added) added->reached = true;
    in_blocks<BLOCK / 2>(z.channels, [&](int first, auto size) { differentiate_kernel<size>(first); });
    if (is_first) return;
    in_blocks<BLOCK>(x->channels, [&](int first, auto size) { differentiate_input<size>(first); });
    x->reached = true;
  }

  // Sums for B channels, and for as many vectors of a pixel as leave registers free.
  template <int B> void convolve(int first) {
    constexpr int V = std::clamp(BLOCK / B, 1, PIXEL);
    const size_t next = size_t(x->channels) * K * K, plane = x->plane();  // from a channel's kernels to those of the next
    for (int row = 0; row < z.height; row++)
      for (int column = 0; column < z.width; column++)
        for (int part = 0; part < PIXEL; part += V) {
          Lanes sums[B][V] = {};
          const int top = row * stride - PAD, left = column * stride - PAD;
          const int i0 = std::max(0, -top), i1 = std::min(K, x->height - top), j0 = std::max(0, -left), j1 = std::min(K, x->width - left);
          for (int c = 0; c < x->channels; c++)
            for (int i = i0; i < i1; i++) {
              const Lanes* here = x->value.data() + c * plane + (size_t(top + i) * x->width + left + j0) * PIXEL + part;
              const float* weight = kernel.value + first * next + (c * K + i) * K;
              for (int j = j0; j < j1; j++, here += PIXEL)
                for (int b = 0; b < B; b++)
                  for (int k = 0; k < V; k++) sums[b][k] += here[k] * weight[b * next + j];
            }
          for (int b = 0; b < B; b++)
            for (int k = 0; k < V; k++) z.value[z.at(first + b, row, column) + part + k] = sums[b][k];
        }
  }

  template <int B> void differentiate_input(int first) {
    constexpr int V = std::clamp(BLOCK / B, 1, PIXEL);
    const size_t next = size_t(x->channels) * K * K, plane = z.plane();
    for (int row = 0; row < x->height; row++)
      for (int column = 0; column < x->width; column++)
        for (int part = 0; part < PIXEL; part += V) {
          Lanes sums[B][V] = {};
          for (int i = 0; i < K; i++) {
            const int above = row + PAD - i;
            if (above < 0 || above % stride || above / stride >= z.height) continue;
            for (int j = 0; j < K; j++) {
              const int before = column + PAD - j;
              if (before < 0 || before % stride || before / stride >= z.width) continue;
              const Lanes* here = z.gradient.data() + z.at(0, above / stride, before / stride) + part;
              const float* weight = kernel.value + (size_t(first) * K + i) * K + j;
              for (int c = 0; c < z.channels; c++, here += plane, weight += next)
                for (int b = 0; b < B; b++)
                  for (int k = 0; k < V; k++) sums[b][k] += here[k] * weight[b * K * K];
            }
          }
          for (int b = 0; b < B; b++)
            for (int k = 0; k < V; k++) x->add(x->at(first + b, row, column) + part + k, sums[b][k]);
        }
  }

  template <int B> void differentiate_kernel(int first) {
    const size_t plane = z.plane();
    for (int c = 0; c < x->channels; c++)
      for (int i = 0; i < K; i++) {
        Lanes sums[B][K] = {};
        for (int row = 0; row < z.height; row++) {
          const int above = row * stride + i - PAD;
          if (above < 0 || above >= x->height) continue;
          const Lanes *line = x->value.data() + x->at(c, above, 0), *given = z.gradient.data() + z.at(first, row, 0);
          for (int column = 0; column < z.width; column++)
            for (int part = 0; part < PIXEL; part++, given++) {
              Lanes near[K];
              for (int j = 0; j < K; j++) {
                const int before = column * stride + j - PAD;
                near[j] = before >= 0 && before < x->width ? line[before * PIXEL + part] : Lanes{};
              }
              for (int b = 0; b < B; b++)
                for (int j = 0; j < K; j++) sums[b][j] += given[b * plane] * near[j];
            }
        }
        for (int b = 0; b < B; b++)
          for (int j = 0; j < K; j++) kernel.gradient[((size_t(first + b) * x->channels + c) * K + i) * K + j] = total(sums[b][j]);
      }
  }
};

// The mean of 2 x 2 pixels, or of those that there are at the right and lower edges.
struct Pool : Part {
  Map *x, y;

  explicit Pool(Map* x_) : x(x_), y(x_->channels, (x_->height + 1) / 2, (x_->width + 1) / 2) {}

  template <typename F> void over_pixels(F f) {
    for (int c = 0; c < y.channels; c++)
      for (int row = 0; row < y.height; row++)
        for (int column = 0; column < y.width; column++) {
          const int bottom = std::min(2 * row + 2, x->height), right = std::min(2 * column + 2, x->width);
          const float share = 1.f / ((bottom - 2 * row) * (right - 2 * column));
          for (int i = 2 * row; i < bottom; i++)
            for (int j = 2 * column; j < right; j++)
              for (int part = 0; part < PIXEL; part++) f(x->at(c, i, j) + part, y.at(c, row, column) + part, share);
        }
  }

  void forward() override {
    std::fill(y.value.begin(), y.value.end(), Lanes{});
    over_pixels([&](size_t from, size_t to, float share) { y.value[to] += share * x->value[from]; });
    y.reached = false;
  }

  void backward() override {
    over_pixels([&](size_t from, size_t to, float share) { x->add(from, share * y.gradient[to]); });
    x->reached = true;
  }
};

enum class Kind { vector, matrix, muon };

struct Tensor {
  size_t first;
  int rows, columns;
  Kind kind;
};

struct Network {
  Map image;
  std::vector<std::unique_ptr<Part>> parts;
  std::vector<Tensor> tensors;
  std::vector<float> gradient;
  float* weights;
  Map* last;
  int n_classes;

  // shape: channels and size of the image, classes, channels of the stem, number of blocks; of each: inner channels, channels, stride.
  Network(const int* shape, float* weights_, size_t n_weights)
      : image(shape[0], shape[1], shape[1]), gradient(n_weights), weights(weights_), n_classes(shape[2]) {
    last = layer<3>(&image, shape[3], 1, nullptr, true, Kind::matrix);
    for (int block = 0; block < shape[4]; block++) {
      const int *one = shape + 5 + 3 * block, inner = one[0], out = one[1], stride = one[2];
      Map *x = last, *around = x;
      if (stride > 1) around = &part<Pool>(x)->y;
      if (stride > 1 || x->channels != out) around = layer<1>(around, out, 1, nullptr, false, Kind::muon);
      last = layer<3>(layer<3>(x, inner, stride, nullptr, true, Kind::muon), out, 1, around, true, Kind::muon);
    }
    take(n_classes, last->channels, Kind::matrix);
    take(n_classes, 1, Kind::vector);
  }

  template <typename P, typename... Arguments> P* part(Arguments... arguments) {
    parts.push_back(std::make_unique<P>(arguments...));
    return static_cast<P*>(parts.back().get());
  }

  Weights take(int rows, int columns, Kind kind) {
    const size_t first = tensors.empty() ? 0 : tensors.back().first + size_t(tensors.back().rows) * tensors.back().columns;
    tensors.push_back({first, rows, columns, kind});
    return {weights + first, &gradient[first]};
  }

  template <int K> Map* layer(Map* x, int out, int stride, Map* added, bool rectifies, Kind kind) {
    auto* made = part<Layer<K>>(x, out, stride, added, rectifies, x == &image);
    made->kernel = take(out, x->channels * K * K, kind);
    made->gamma = take(out, 1, Kind::vector);
    made->beta = take(out, 1, Kind::vector);
    return &made->y;
  }

  // Computes the gradients on the batch in `image`; returns its cross-entropy.
  double learn(const int64_t* labels) {
    for (auto& one : parts) one->forward();
    const int features = last->channels;
    const size_t plane = last->plane(), pixels = plane / PIXEL;
    const Tensor head = tensors[tensors.size() - 2], bias = tensors.back();
    std::vector<float> mean(size_t(features) * N), slope(size_t(n_classes) * N);
    for (int c = 0; c < features; c++)
      for (size_t i = 0; i < plane; i++)
        for (int k = 0; k < WIDTH; k++) mean[c * N + i % PIXEL * WIDTH + k] += last->value[c * plane + i][k] / pixels;
    for (int k = 0; k < n_classes; k++)
      for (int n = 0; n < N; n++) {
        float logit = weights[bias.first + k];
        for (int c = 0; c < features; c++) logit += weights[head.first + k * features + c] * mean[c * N + n];
        slope[k * N + n] = logit;
      }
    double loss = 0;
    for (int n = 0; n < N; n++) {
      float most = slope[n], sum = 0;
      for (int k = 1; k < n_classes; k++) most = std::max(most, slope[k * N + n]);
      for (int k = 0; k < n_classes; k++) sum += std::exp(slope[k * N + n] - most);
      loss += std::log(sum) + most - slope[labels[n] * N + n];
      for (int k = 0; k < n_classes; k++) slope[k * N + n] = (std::exp(slope[k * N + n] - most) / sum - (k == labels[n])) / N;
    }
    for (int k = 0; k < n_classes; k++) {
      const float* here = &slope[k * N];
      gradient[bias.first + k] = std::accumulate(here, here + N, 0.f);
      for (int c = 0; c < features; c++) gradient[head.first + k * features + c] = std::inner_product(here, here + N, &mean[c * N], 0.f);
    }
    for (int c = 0; c < features; c++)
      for (int part = 0; part < PIXEL; part++) {
        Lanes back{};
        for (int k = 0; k < n_classes; k++)
          for (int i = 0; i < WIDTH; i++) back[i] += slope[k * N + part * WIDTH + i] * weights[head.first + k * features + c] / pixels;
        for (size_t i = part; i < plane; i += PIXEL) last->gradient[c * plane + i] = back;
      }
    for (auto one = parts.rbegin(); one != parts.rend(); ++one) (*one)->backward();
    return loss / N;
  }
};

// Takes the singular values of a matrix to about 1, as odn.training.muon does.
std::vector<float> orthogonalised(const float* matrix, int rows, int columns) {
  const bool tall = rows > columns;
  const int few = std::min(rows, columns), many = std::max(rows, columns);
  std::vector<float> x(size_t(few) * many), next(x.size()), gram(few * few), polynomial(few * few), result(x.size());
  const float norm = std::sqrt(std::inner_product(matrix, matrix + x.size(), matrix, 0.f)) + 1e-7f;
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) x[tall ? size_t(j) * many + i : size_t(i) * many + j] = matrix[size_t(i) * columns + j] / norm;
  for (int iteration = 0; iteration < 5; iteration++) {
    for (int i = 0; i < few; i++)
      for (int j = i; j < few; j++)
        gram[i * few + j] = gram[j * few + i] = std::inner_product(&x[i * many], &x[i * many] + many, &x[j * many], 0.f);
    for (int i = 0; i < few; i++) {
      float* row = &polynomial[i * few];
      for (int j = 0; j < few; j++) row[j] = -4.7750f * gram[i * few + j] + (i == j ? 3.4445f : 0.f);
      for (int k = 0; k < few; k++)
        for (int j = 0; j < few; j++) row[j] += 2.0315f * gram[i * few + k] * gram[k * few + j];
    }
    std::fill(next.begin(), next.end(), 0.f);
    for (int i = 0; i < few; i++)
      for (int k = 0; k < few; k++)
        for (int j = 0; j < many; j++) next[i * many + j] += polynomial[i * few + k] * x[k * many + j];
    x.swap(next);
  }
  const float stretch = std::sqrt(std::max(1.f, float(rows) / columns));
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) result[size_t(i) * columns + j] = stretch * x[tall ? size_t(j) * many + i : size_t(i) * many + j];
  return result;
}

// Nesterov's momentum; decay of matrices; Muon for the kernels of the blocks where it is asked for.
void step(Network& network, float* momentum, bool muon, float rate, float muon_rate) {
  for (const Tensor& one : network.tensors) {
    const size_t size = size_t(one.rows) * one.columns;
    float *weight = network.weights + one.first, *speed = momentum + one.first;
    const bool turns = muon && one.kind == Kind::muon;
    std::vector<float> ahead(&network.gradient[one.first], &network.gradient[one.first] + size);
    for (size_t i = 0; i < size; i++) {
      if (!turns && one.kind != Kind::vector) ahead[i] += DECAY * weight[i];
      speed[i] = MOMENTUM * speed[i] + ahead[i];
      ahead[i] += MOMENTUM * speed[i];
    }
    if (turns) ahead = orthogonalised(ahead.data(), one.rows, one.columns);
    for (size_t i = 0; i < size; i++) weight[i] -= turns ? muon_rate * (MUON_DECAY * weight[i] + ahead[i]) : rate * ahead[i];
  }
}

}  // namespace

// Trains for `steps` batches of 32 of the images (n, C, size, size) in this order; returns the mean loss. Weights, momentum and gradient
// (of the last batch) hold n_weights numbers; the gradient may be null.
extern "C" double epoch(const int* shape, float* weights, float* momentum, float* gradient, int64_t n_weights, const float* images,
                        const int64_t* labels, const int64_t* order, int steps, int muon, float rate, float muon_rate) {
  Network network(shape, weights, n_weights);
  Map& image = network.image;
  const size_t pixels = size_t(image.channels) * image.height * image.width;
  double loss = 0;
  for (int number = 0; number < steps; number++, order += N) {
    int64_t here[N];
    for (int n = 0; n < N; n++) {
      here[n] = labels[order[n]];
      const float* one = images + order[n] * pixels;
      for (size_t i = 0; i < pixels; i++) image.value[i * PIXEL + n / WIDTH][n % WIDTH] = one[i];
    }
    loss += network.learn(here) / steps;
    step(network, momentum, muon, rate, muon_rate);
  }
  if (gradient) std::copy(network.gradient.begin(), network.gradient.end(), gradient);
  return loss;
}
