// An epoch of training of a thin residual network, all of it in compiled C++: batches, odn's own forward and backward pass, loss, and a
// step of SGD or Muon. Nothing is augmented or averaged. Weights and their gradients are flat: of each layer its kernel, channels last,
// and BatchNorm's scale and shift; then the head.

#define SOURCE ""
#include "../../src/odn/compiled/residual.cpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace {

constexpr float EPSILON = 1e-5f, MOMENTUM = 0.9f, DECAY = 5e-4f, MUON_DECAY = 0.02f;

enum class Kind { vector, matrix, muon };

struct Tensor {
  size_t first;
  int rows, columns;
  Kind kind;
  size_t size() const { return size_t(rows) * columns; }
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
void step(const std::vector<Tensor>& tensors, float* weights, float* momentum, const float* gradients, bool muon, float rate,
          float muon_rate) {
  for (const Tensor& one : tensors) {
    float *weight = weights + one.first, *speed = momentum + one.first;
    const bool turns = muon && one.kind == Kind::muon;
    std::vector<float> ahead(gradients + one.first, gradients + one.first + one.size());
    for (size_t i = 0; i < ahead.size(); i++) {
      if (!turns && one.kind != Kind::vector) ahead[i] += DECAY * weight[i];
      speed[i] = MOMENTUM * speed[i] + ahead[i];
      ahead[i] += MOMENTUM * speed[i];
    }
    if (turns) ahead = orthogonalised(ahead.data(), one.rows, one.columns);
    for (size_t i = 0; i < ahead.size(); i++) weight[i] -= turns ? muon_rate * (MUON_DECAY * weight[i] + ahead[i]) : rate * ahead[i];
  }
}

// Classifies features (n, F) with a head (K, F) and its bias; returns the cross-entropy, and writes the gradients of all three.
double classify(const float* features, int n, int n_features, const float* head, int n_classes, const int64_t* labels, float* d_features,
                float* d_head) {
  const float* bias = head + n_classes * n_features;
  float* d_bias = d_head + n_classes * n_features;
  std::fill(d_head, d_bias + n_classes, 0.f);
  std::vector<float> slope(n_classes);
  double loss = 0;
  for (int i = 0; i < n; i++, features += n_features, d_features += n_features) {
    for (int k = 0; k < n_classes; k++) slope[k] = std::inner_product(features, features + n_features, head + k * n_features, bias[k]);
    const float most = *std::max_element(slope.begin(), slope.end()), own = slope[labels[i]];
    float sum = 0;
    for (float& one : slope) sum += one = std::exp(one - most);
    loss += (std::log(sum) + most - own) / n;
    std::fill(d_features, d_features + n_features, 0.f);
    for (int k = 0; k < n_classes; k++) {
      const float each = (slope[k] / sum - (k == labels[i])) / n;
      d_bias[k] += each;
      for (int j = 0; j < n_features; j++) {
        d_head[k * n_features + j] += each * features[j];
        d_features[j] += each * head[k * n_features + j];
      }
    }
  }
  return loss;
}

}  // namespace

// Trains for `steps` batches of n of the images (…, C, size, size) in this order; returns the mean loss. The table of layers is that of
// odn_make; weights, momentum and gradients (of the last batch) are as long as all weights.
extern "C" double epoch(const int* table, int n_layers, int n, int channels, int size, int n_classes, float* weights, float* momentum,
                        float* gradients, const float* images, const int64_t* labels, const int64_t* order, int steps, int muon,
                        float rate, float muon_rate) {
  void* made = odn_make(table, n_layers, n, channels, size, size, EPSILON, 0.1f);
  if (!made) return NAN;
  Network& network = *static_cast<Network*>(made);
  std::vector<Tensor> tensors;
  auto take = [&](int rows, int columns, Kind kind) {
    tensors.push_back({tensors.empty() ? 0 : tensors.back().first + tensors.back().size(), rows, columns, kind});
    return tensors.back().first;
  };
  std::vector<void*> places;
  std::vector<float> running(2 * 4096);
  int64_t n_batches = 0;
  for (int i = 0; i < n_layers; i++) {
    const Layer& layer = network.layers[i];
    const int squares = layer.kernel_size * layer.kernel_size, out = layer.y.channels;
    if (!squares) {
      places.insert(places.end(), 9, nullptr);
      continue;
    }
    const size_t own[] = {take(out, layer.x->channels * squares, i ? Kind::muon : Kind::matrix), take(out, 1, Kind::vector),
                          take(out, 1, Kind::vector)};
    for (float* base : {weights, gradients})
      for (size_t first : own) places.push_back(base + first);
    places.insert(places.end(), {running.data(), running.data() + 4096, &n_batches});
  }
  const int n_features = network.map(n_layers).channels;
  const size_t head = take(n_classes, n_features, Kind::matrix), pixels = size_t(channels) * size * size;
  take(n_classes, 1, Kind::vector);
  std::vector<float> batch(n * pixels), features(n * n_features), d_features(features.size());
  std::vector<int64_t> own_labels(n);
  const int64_t strides[] = {int64_t(pixels), int64_t(size) * size, size, 1};
  double loss = 0;
  for (int number = 0; number < steps; number++, order += n) {
    for (int i = 0; i < n; i++) {
      std::copy(images + order[i] * pixels, images + (order[i] + 1) * pixels, &batch[i * pixels]);
      own_labels[i] = labels[order[i]];
    }
    odn_forward(made, batch.data(), strides, places.data(), features.data());
    loss += classify(features.data(), n, n_features, weights + head, n_classes, own_labels.data(), d_features.data(), gradients + head);
    odn_backward(made, d_features.data());
    step(tensors, weights, momentum, gradients, muon, rate, muon_rate);
  }
  odn_release(made);
  return loss / steps;
}
