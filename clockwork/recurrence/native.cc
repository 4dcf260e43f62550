// The cascade of a clockwork layer, forwards and backwards, as one loop over time on a CPU.
//
// At each step, the active modules take their drives, move, and send: C[j] holds what module j and all slower ones have
// sent, in columns [readout | units of modules faster than j]; C[g] is the bias. So a module's drive is in C[j + 1], the
// outputs are the first columns of C[0], and nothing is computed for a module that does not tick. The backward pass runs
// the same steps in reverse; the error of C[g] is the gradient of the bias.
//
// The loop is written once, over two ways to lay out its arrays: `Runs` puts networks side by side in SIMD lanes, each
// with weights of its own; `Rows` computes products of the rows of a batch with shared weights.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kBytes = 64;  // of a cache line, and of a vector of runs

int64_t padded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// --- Vectors -----------------------------------------------------------------------------------------------------

template <typename T, int W>
struct Vector;
template <>
struct Vector<float, 8> {
  typedef float type __attribute__((vector_size(32)));
};
template <>
struct Vector<float, 16> {
  typedef float type __attribute__((vector_size(64)));
};
template <>
struct Vector<double, 4> {
  typedef double type __attribute__((vector_size(32)));
};
template <>
struct Vector<double, 8> {
  typedef double type __attribute__((vector_size(64)));
};

template <typename V, typename T>
inline __attribute__((always_inline)) V load(const T* from) {
  V x;
  std::memcpy(&x, from, sizeof(V));
  return x;
}

template <typename V, typename T>
inline __attribute__((always_inline)) void store(T* to, V x) {
  std::memcpy(to, &x, sizeof(V));
}

// tanh of float32 as a ratio of polynomials, to a few units in the last place; NaN stays NaN.
template <typename V>
inline __attribute__((always_inline)) V tanh_float(V x) {
  const V limit = V{} + 7.90531110763549805f;
  x = x > limit ? limit : x;
  x = x < -limit ? -limit : x;
  const V s = x * x;
  V p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
  p = p * s + -8.60467152213735e-11f;
  p = p * s + 5.12229709037114e-08f;
  p = p * s + 1.48572235717979e-05f;
  p = p * s + 6.37261928875436e-04f;
  p = p * s + 4.89352455891786e-03f;
  V q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
  q = q * s + 2.26843463243900e-03f;
  q = q * s + 4.89352518554385e-03f;
  return p * x / q;
}

template <typename V, typename T>
inline __attribute__((always_inline)) V squashed(V x) {
  if constexpr (sizeof(T) == 4) {
    return tanh_float(x);
  } else {
    for (size_t i = 0; i < sizeof(V) / sizeof(T); i++) x[i] = std::tanh(x[i]);
    return x;
  }
}

// --- Memory and threads ------------------------------------------------------------------------------------------

// Zeroed, aligned memory that is freed as one. It is cut from a few chunks, which each thread keeps for its next call.
template <typename T>
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  ~Arena() {
    auto& kept = kept_chunks();
    for (Chunk& chunk : chunks_)
      if (kept.size() < kKept && chunk.size == kChunk) kept.push_back(std::move(chunk));
  }
  T* make(int64_t count) {
    const size_t bytes = padded(count * sizeof(T) + kBytes, kBytes);  // vectors may read past the end
    if (left_ < bytes) grow(bytes);
    void* block = next_;
    next_ += bytes, left_ -= bytes;
    std::memset(block, 0, bytes);
    return static_cast<T*>(block);
  }

 private:
  struct Free {
    void operator()(char* memory) const { ::operator delete(memory, std::align_val_t(kBytes)); }
  };
  struct Chunk {
    std::unique_ptr<char, Free> memory;
    size_t size;
  };
  static constexpr size_t kChunk = 1 << 18, kKept = 16;

  static std::vector<Chunk>& kept_chunks() {
    static thread_local std::vector<Chunk> kept;
    return kept;
  }
  void grow(size_t bytes) {
    auto& kept = kept_chunks();
    if (bytes <= kChunk && !kept.empty()) {
      chunks_.push_back(std::move(kept.back()));
      kept.pop_back();
    } else {
      const size_t size = std::max(bytes, kChunk);
      char* memory = static_cast<char*>(::operator new(size, std::align_val_t(kBytes)));
      chunks_.push_back({std::unique_ptr<char, Free>(memory), size});
    }
    next_ = chunks_.back().memory.get(), left_ = chunks_.back().size;
  }

  std::vector<Chunk> chunks_;
  char* next_ = nullptr;
  size_t left_ = 0;
};

// Calls `work(i)` for each i below `count`, on the caller's thread and on up to `threads - 1` of the pool that are free.
// The caller waits only for work that has begun, so that a pool of busy threads delays nothing.
template <typename Work>
void in_parallel(ffi::ThreadPool& pool, int64_t threads, int64_t count, const Work& work) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
  };
  const int64_t helpers = std::min(threads, count) - 1;
  auto shared = std::make_shared<Shared>();
  auto take = [shared, count, &work] {
    for (int64_t i; (i = shared->next.fetch_add(1)) < count;) {
      work(i);
      shared->done.fetch_add(1);
    }
  };
  for (int64_t i = 0; i < helpers; i++) pool.Schedule(decltype(take)(take));
  take();
  while (shared->done.load() < count) std::this_thread::yield();
}

// --- The layer ---------------------------------------------------------------------------------------------------

struct Module {
  int64_t size, start;     // its units, and the number of faster ones
  int64_t first, period;   // its first tick, and the steps between two
  int64_t ticks;
  bool apart;              // whether a slower module may tick when this one does not
};

// The arrays of a call, of one network or of many. An array of sequences is (outer, rows, batch, width, runs).
struct Layer {
  std::vector<Module> modules;
  int64_t units, inputs, outputs, steps;  // `outputs` are the columns of the readout; 0 for none
  int64_t outer, batch, runs;
  bool has_inputs;

  int64_t modules_count() const { return modules.size(); }
  int64_t columns() const { return outputs + units; }
};

template <typename T>
struct Parameters {
  T *input, *bias, *readout;      // (I, N), (N), (N, O)
  std::vector<T*> recurrent;      // (k, a + k) each
};

template <typename T>
struct Sequences {
  T *inputs, *outputs, *hidden, *last;  // (T, I), (T, O or N), (N), (N)
  std::vector<T*> values;               // (ticks + 1, k) each
};

// A matrix of weights as a layout keeps it, and the sum of its gradient.
template <typename T>
struct Matrix {
  int64_t senders = 0, receivers = 0, stride = 0, stride_t = 0;
  T *weights = nullptr, *transposed = nullptr, *gradient = nullptr;
};

// --- Many networks side by side ----------------------------------------------------------------------------------

// Up to `W` networks in the lanes of a vector; an array of n units is n vectors.
template <typename T, int W>
struct Runs {
  using V = typename Vector<T, W>::type;
  int64_t runs, batch, first_run, row;  // the lanes are runs first_run + 0, 1, ... of sequence `row`
  int64_t lanes;
  Arena<T>* arena;

  T* make(int64_t n) { return arena->make(n * W); }
  static T* at(T* p, int64_t column) { return p + column * W; }

  // n columns of a row of an array of sequences.
  int64_t place(int64_t s, int64_t width, int64_t column) const {
    return ((s * batch + row) * width + column) * runs + first_run;
  }
  void read(T* to, const T* from, int64_t s, int64_t width, int64_t column, int64_t n) const {
    from += place(s, width, column);
    for (int64_t e = 0; e < n; e++) get(to + e * W, from + e * runs);
  }
  void write(T* to, const T* from, int64_t s, int64_t width, int64_t column, int64_t n) const {
    to += place(s, width, column);
    for (int64_t e = 0; e < n; e++) put(to + e * runs, from + e * W);
  }
  // Brings a row that is read at a later step into the cache: rows are too far apart for the processor to foresee.
  void expect(const T* from, int64_t s, int64_t width) const {
    from += place(s, width, 0);
    for (int64_t e = 0; e < width; e++) __builtin_prefetch(from + e * runs);
  }
  void get(T* to, const T* from) const {
    if (lanes == W) {
      store(to, load<V>(from));
    } else {
      for (int64_t i = 0; i < lanes; i++) to[i] = from[i];
    }
  }
  void put(T* to, const T* from) const {
    if (lanes == W) {
      store(to, load<V>(from));
    } else {
      for (int64_t i = 0; i < lanes; i++) to[i] = from[i];
    }
  }

  // The weights to one receiver after those to the one before: every product reads them as they lie.
  Matrix<T> matrix(int64_t senders, int64_t receivers, bool trained) {
    Matrix<T> m{senders, receivers, senders * W, 0};
    m.weights = make(senders * receivers);
    if (trained) m.gradient = make(senders * receivers);
    return m;
  }
  // Weights to columns from `column` on, of an array whose rows have `width` columns, from column `from_column` on.
  void pack(Matrix<T>& m, int64_t column, const T* from, int64_t width, int64_t from_column, int64_t n) const {
    for (int64_t u = 0; u < m.senders; u++)
      for (int64_t v = 0; v < n; v++)
        get(m.weights + (column + v) * m.stride + u * W, from + (u * width + from_column + v) * runs + first_run);
  }
  void unpack(T* to, const Matrix<T>& m, int64_t column, int64_t width, int64_t to_column, int64_t n) const {
    for (int64_t u = 0; u < m.senders; u++)
      for (int64_t v = 0; v < n; v++)
        put(to + (u * width + to_column + v) * runs + first_run, m.gradient + (column + v) * m.stride + u * W);
  }
  void read_bias(T* to, const T* bias, int64_t n) const {
    for (int64_t e = 0; e < n; e++) get(to + e * W, bias + e * runs + first_run);
  }
  void write_bias(T* bias, const T* from, int64_t n) const {
    for (int64_t e = 0; e < n; e++) put(bias + e * runs + first_run, from + e * W);
  }
  static void finish(Matrix<T>&) {}

  static void zero(T* x, int64_t n) { std::memset(x, 0, n * W * sizeof(T)); }
  static void copy(T* to, const T* from, int64_t n) { std::memcpy(to, from, n * W * sizeof(T)); }
  static void add(T* to, const T* from, int64_t n) {
    for (int64_t e = 0; e < n; e++) store(to + e * W, load<V>(to + e * W) + load<V>(from + e * W));
  }
  static void squash(T* to, const T* z, int64_t n) {
    for (int64_t e = 0; e < n; e++) store(to + e * W, squashed<V, T>(load<V>(z + e * W)));
  }
  // delta = error (1 - h^2)
  static void slope(T* delta, const T* error, const T* h, int64_t n) {
    for (int64_t e = 0; e < n; e++) {
      const V x = load<V>(h + e * W), y = load<V>(error + e * W);
      store(delta + e * W, y - y * x * x);
    }
  }

  // z = start + h W
  static void send(T* z, const T* start, const T* h, const Matrix<T>& m) {
    int64_t u = 0;
    do {
      const int64_t k = std::min(m.senders - u, kBlock);
      by_count(k, [&](auto count) { send_block<count.value>(z, start, h + u * W, m, m.weights + u * W); });
      start = z, u += k;
    } while (u < m.senders);
  }
  template <int K>
  static inline void send_block(T* z, const T* start, const T* h, const Matrix<T>& m, const T* w) {
    V x[K ? K : 1];
    for (int i = 0; i < K; i++) x[i] = load<V>(h + i * W);
    for (int64_t v = 0; v < m.receivers; v++, w += m.stride) {
      V sum = load<V>(start + v * W), more = V{};  // two sums that do not wait for each other
      for (int i = 0; i < K; i++) (i % 2 ? more : sum) += x[i] * load<V>(w + i * W);
      store(z + v * W, sum + more);
    }
  }
  // error += W c if it is given, the gradient of W += h c, and then `on` += c and c = 0, if it is given.
  static void back(T* error, Matrix<T>& m, const T* h, T* c, T* on = nullptr) {
    int64_t u = 0;
    do {
      const int64_t k = std::min(m.senders - u, kBlock);
      T* then = u + k == m.senders ? on : nullptr;
      by_count(k, [&](auto count) {
        if (error) {
          back_block<count.value, true>(error + u * W, m, h + u * W, c, then, u);
        } else {
          back_block<count.value, false>(nullptr, m, h + u * W, c, then, u);
        }
      });
      u += k;
    } while (u < m.senders);
  }
  template <int K, bool wanted>
  static inline void back_block(T* error, Matrix<T>& m, const T* h, T* c, T* on, int64_t u) {
    V sum[K ? K : 1], x[K ? K : 1];
    for (int i = 0; i < K; i++) sum[i] = wanted ? load<V>(error + i * W) : V{}, x[i] = load<V>(h + i * W);
    const T* w = m.weights + u * W;
    T* g = m.gradient + u * W;
    for (int64_t v = 0; v < m.receivers; v++, w += m.stride, g += m.stride) {
      const V y = load<V>(c + v * W);
      for (int i = 0; i < K; i++) {
        if (wanted) sum[i] += y * load<V>(w + i * W);
        store(g + i * W, load<V>(g + i * W) + x[i] * y);
      }
      if (on) {
        store(on + v * W, load<V>(on + v * W) + y);
        store(c + v * W, V{});
      }
    }
    for (int i = 0; i < K && wanted; i++) store(error + i * W, sum[i]);
  }

 private:
  static constexpr int64_t kBlock = 8;  // senders that are kept in registers
  template <typename Function>
  static inline void by_count(int64_t k, const Function& function) {
    switch (k) {
      case 0: return function(std::integral_constant<int, 0>());
      case 1: return function(std::integral_constant<int, 1>());
      case 2: return function(std::integral_constant<int, 2>());
      case 3: return function(std::integral_constant<int, 3>());
      case 4: return function(std::integral_constant<int, 4>());
      case 5: return function(std::integral_constant<int, 5>());
      case 6: return function(std::integral_constant<int, 6>());
      case 7: return function(std::integral_constant<int, 7>());
      default: return function(std::integral_constant<int, 8>());
    }
  }
};

// --- The rows of a batch -----------------------------------------------------------------------------------------

// c[i][v] = start[i][v] + sum over l of a[i, l] b[l][v], a vector of v at a time; what lies beyond the last column is written too.
template <typename T, int W, int I, int J>
inline __attribute__((always_inline)) void tile(int64_t length, const T* a, int64_t a_row, int64_t a_column,
                                                const T* b, int64_t b_row, const T* start, T* c, int64_t c_row) {
  using V = typename Vector<T, W>::type;
  V sum[I][J];
  for (int i = 0; i < I; i++)
    for (int j = 0; j < J; j++) sum[i][j] = load<V>(start + i * c_row + j * W);
  for (int64_t l = 0; l < length; l++, a += a_column, b += b_row) {
    V y[J];
    for (int j = 0; j < J; j++) y[j] = load<V>(b + j * W);
    for (int i = 0; i < I; i++) {
      const V x = V{} + a[i * a_row];
      for (int j = 0; j < J; j++) sum[i][j] += x * y[j];
    }
  }
  for (int i = 0; i < I; i++)
    for (int j = 0; j < J; j++) store(c + i * c_row + j * W, sum[i][j]);
}

template <typename T, int W, int I>
inline void strip(int64_t columns, int64_t length, const T* a, int64_t a_row, int64_t a_column, const T* b,
                  int64_t b_row, const T* start, T* c, int64_t c_row) {
  int64_t left = (columns + W - 1) / W;
  for (; left > 4 || left == 3; left -= 3, b += 3 * W, start += 3 * W, c += 3 * W)
    tile<T, W, I, 3>(length, a, a_row, a_column, b, b_row, start, c, c_row);
  for (; left >= 2; left -= 2, b += 2 * W, start += 2 * W, c += 2 * W)
    tile<T, W, I, 2>(length, a, a_row, a_column, b, b_row, start, c, c_row);
  if (left) tile<T, W, I, 1>(length, a, a_row, a_column, b, b_row, start, c, c_row);
}

template <typename T, int W>
void product(int64_t rows, int64_t columns, int64_t length, const T* a, int64_t a_row, int64_t a_column, const T* b,
             int64_t b_row, const T* start, T* c, int64_t c_row) {
#ifdef __AVX512VL__  // twice the registers
  for (; rows >= 8; rows -= 8, a += 8 * a_row, start += 8 * c_row, c += 8 * c_row)
    strip<T, W, 8>(columns, length, a, a_row, a_column, b, b_row, start, c, c_row);
#endif
  for (; rows >= 4; rows -= 4, a += 4 * a_row, start += 4 * c_row, c += 4 * c_row)
    strip<T, W, 4>(columns, length, a, a_row, a_column, b, b_row, start, c, c_row);
  if (rows == 3) strip<T, W, 3>(columns, length, a, a_row, a_column, b, b_row, start, c, c_row);
  if (rows == 2) strip<T, W, 2>(columns, length, a, a_row, a_column, b, b_row, start, c, c_row);
  if (rows == 1) strip<T, W, 1>(columns, length, a, a_row, a_column, b, b_row, start, c, c_row);
}

// Sequences `row` to `row + rows` of a batch; an array of n units has a row for each of them.
template <typename T>
struct Rows {
  static constexpr int W = 32 / sizeof(T);
  using V = typename Vector<T, W>::type;
  int64_t batch, row, rows;
  int64_t stride;  // between two rows of every array
  Arena<T>* arena;

  T* make(int64_t) { return arena->make(rows * stride); }
  static T* at(T* p, int64_t column) { return p + column; }

  void read(T* to, const T* from, int64_t s, int64_t width, int64_t column, int64_t n) const {
    from += (s * batch + row) * width + column;
    for (int64_t b = 0; b < rows; b++) copy_row(to + b * stride, from + b * width, n);
  }
  void write(T* to, const T* from, int64_t s, int64_t width, int64_t column, int64_t n) const {
    to += (s * batch + row) * width + column;
    for (int64_t b = 0; b < rows; b++) copy_row(to + b * width, from + b * stride, n);
  }
  static void expect(const T*, int64_t, int64_t) {}
  static inline void copy_row(T* to, const T* from, int64_t n) {
    int64_t e = 0;
    for (; e + W <= n; e += W) store(to + e, load<V>(from + e));
    for (; e < n; e++) to[e] = from[e];
  }

  Matrix<T> matrix(int64_t senders, int64_t receivers, bool trained) {
    Matrix<T> m{senders, receivers, padded(receivers, W), padded(senders, W)};
    m.weights = arena->make(senders * m.stride);
    if (trained) {
      m.gradient = arena->make(senders * m.stride);
      m.transposed = arena->make(receivers * m.stride_t);
    }
    return m;
  }
  static void pack(Matrix<T>& m, int64_t column, const T* from, int64_t width, int64_t from_column, int64_t n) {
    for (int64_t u = 0; u < m.senders; u++)
      std::memcpy(m.weights + u * m.stride + column, from + u * width + from_column, n * sizeof(T));
  }
  static void finish(Matrix<T>& m) {
    if (m.transposed)
      for (int64_t u = 0; u < m.senders; u++)
        for (int64_t v = 0; v < m.receivers; v++) m.transposed[v * m.stride_t + u] = m.weights[u * m.stride + v];
  }
  static void unpack(T* to, const Matrix<T>& m, int64_t column, int64_t width, int64_t to_column, int64_t n) {
    for (int64_t u = 0; u < m.senders; u++)
      for (int64_t v = 0; v < n; v++) to[u * width + to_column + v] += m.gradient[u * m.stride + column + v];
  }
  void read_bias(T* to, const T* bias, int64_t n) const {
    for (int64_t b = 0; b < rows; b++) copy_row(to + b * stride, bias, n);
  }
  void write_bias(T* bias, const T* from, int64_t n) const {
    for (int64_t b = 0; b < rows; b++)
      for (int64_t e = 0; e < n; e++) bias[e] += from[b * stride + e];
  }

  void zero(T* x, int64_t n) const {
    for (int64_t b = 0; b < rows; b++) std::fill_n(x + b * stride, n, T(0));
  }
  void copy(T* to, const T* from, int64_t n) const {
    for (int64_t b = 0; b < rows; b++) copy_row(to + b * stride, from + b * stride, n);
  }
  void add(T* to, const T* from, int64_t n) const {
    for (int64_t b = 0; b < rows; b++) {
      T* x = to + b * stride;
      const T* y = from + b * stride;
      int64_t e = 0;
      for (; e + W <= n; e += W) store(x + e, load<V>(x + e) + load<V>(y + e));
      for (; e < n; e++) x[e] += y[e];
    }
  }
  void squash(T* to, const T* z, int64_t n) const {
    for (int64_t b = 0; b < rows; b++)
      for (int64_t e = 0; e < n; e += W)
        store(to + b * stride + e, squashed<V, T>(load<V>(z + b * stride + e)));
  }
  void slope(T* delta, const T* error, const T* h, int64_t n) const {
    for (int64_t b = 0; b < rows; b++)
      for (int64_t e = 0; e < n; e += W) {
        const V x = load<V>(h + b * stride + e), y = load<V>(error + b * stride + e);
        store(delta + b * stride + e, y - y * x * x);
      }
  }
  void send(T* z, const T* start, const T* h, const Matrix<T>& m) const {
    product<T, W>(rows, m.receivers, m.senders, h, stride, 1, m.weights, m.stride, start, z, stride);
  }
  void back(T* error, Matrix<T>& m, const T* h, T* c, T* on = nullptr) const {
    if (error)
      product<T, W>(rows, m.senders, m.receivers, c, stride, 1, m.transposed, m.stride_t, error, error, stride);
    product<T, W>(m.senders, m.receivers, rows, h, 1, stride, c, stride, m.gradient, m.gradient, m.stride);
    if (on) {
      add(on, c, m.receivers);
      zero(c, m.receivers);
    }
  }
};

// --- The loops over time -----------------------------------------------------------------------------------------

// The weights of a module: from the inputs, to itself, and to the readout and all faster units.
template <typename T>
struct Blocks {
  Matrix<T> in, own, out;
};

template <typename T, typename Layout>
std::vector<Blocks<T>> packed(const Layer& layer, Layout& layout, const Parameters<T>& p, bool trained) {
  std::vector<Blocks<T>> found;
  const int64_t o = layer.outputs;
  for (int64_t j = 0; j < layer.modules_count(); j++) {
    const auto& [k, a, first, period, ticks, apart] = layer.modules[j];
    Blocks<T> b{layout.matrix(layer.inputs, k, trained), layout.matrix(k, k, trained),
                layout.matrix(k, o + a, trained)};
    layout.pack(b.in, 0, p.input, layer.units, a, k);
    layout.pack(b.own, 0, p.recurrent[j], a + k, a, k);
    if (o) layout.pack(b.out, 0, p.readout + a * o * layer.runs, o, 0, o);
    layout.pack(b.out, o, p.recurrent[j], a + k, 0, a);
    for (Matrix<T>* m : {&b.in, &b.own, &b.out}) layout.finish(*m);
    found.push_back(b);
  }
  return found;
}

template <typename T, typename Layout>
void unpacked(const Layer& layer, Layout& layout, const std::vector<Blocks<T>>& blocks, Parameters<T>& p) {
  const int64_t o = layer.outputs;
  for (int64_t j = 0; j < layer.modules_count(); j++) {
    const auto& [k, a, first, period, ticks, apart] = layer.modules[j];
    layout.unpack(p.input, blocks[j].in, 0, layer.units, a, k);
    layout.unpack(p.recurrent[j], blocks[j].own, 0, a + k, a, k);
    if (o) layout.unpack(p.readout + a * o * layer.runs, blocks[j].out, 0, o, 0, o);
    layout.unpack(p.recurrent[j], blocks[j].out, o, a + k, 0, a);
  }
}

template <typename T, typename Layout>
void forward(const Layer& layer, Layout& layout, const std::vector<Blocks<T>>& blocks, const T* bias,
             const Sequences<T>& x) {
  const int64_t g = layer.modules_count(), n = layer.units, o = layer.outputs;
  std::vector<T*> sent(g + 1), own(g), h(g), z(g);
  std::vector<int64_t> next(g), tick(g, 0);
  T *input = layout.make(layer.inputs), *nothing = layout.make(layer.columns());
  for (int64_t j = 0; j <= g; j++) sent[j] = layout.make(layer.columns());
  layout.read_bias(layout.at(sent[g], o), bias, n);

  // C[j] = C[j + 1] + what module j sends
  auto send = [&](int64_t j, bool moved) {
    const Module& m = layer.modules[j];
    if (m.apart) {
      if (moved) {
        layout.send(own[j], nothing, h[j], blocks[j].out);
      }
      layout.copy(sent[j], sent[j + 1], o + m.start);
      layout.add(sent[j], own[j], o + m.start);
    } else {
      layout.send(sent[j], sent[j + 1], h[j], blocks[j].out);
    }
  };
  for (int64_t j = g - 1; j >= 0; j--) {
    const Module& m = layer.modules[j];
    h[j] = layout.make(m.size), z[j] = layout.make(m.size);
    own[j] = m.apart ? layout.make(o + m.start) : nullptr;
    next[j] = m.first;
    layout.read(h[j], x.hidden, 0, n, m.start, m.size);
    layout.write(x.values[j], h[j], 0, m.size, 0, m.size);
    send(j, true);
  }
  for (int64_t t = 0; t < layer.steps; t++) {
    int64_t slowest = -1;
    for (int64_t j = 0; j < g; j++)
      if (next[j] == t) slowest = j;
    if (slowest >= 0 && layer.has_inputs) layout.read(input, x.inputs, t, layer.inputs, 0, layer.inputs);
    for (int64_t j = 0; j <= slowest; j++) {
      if (next[j] != t) continue;
      const Module& m = layer.modules[j];
      layout.send(z[j], layout.at(sent[j + 1], o + m.start), h[j], blocks[j].own);
      if (layer.has_inputs) layout.send(z[j], z[j], input, blocks[j].in);
    }
    for (int64_t j = slowest; j >= 0; j--) {
      const Module& m = layer.modules[j];
      const bool moved = next[j] == t;
      if (moved) {
        layout.squash(h[j], z[j], m.size);
        layout.write(x.values[j], h[j], ++tick[j], m.size, 0, m.size);
        next[j] += m.period;
      }
      send(j, moved);
    }
    if (o) {
      layout.write(x.outputs, sent[0], t, o, 0, o);
    } else {
      for (int64_t j = 0; j < g; j++)
        layout.write(x.outputs, h[j], t, n, layer.modules[j].start, layer.modules[j].size);
    }
  }
  for (int64_t j = 0; j < g; j++) layout.write(x.last, h[j], 0, n, layer.modules[j].start, layer.modules[j].size);
}

// `x` holds the inputs and values of the forward pass, and the errors of outputs and last state; `bars` the results.
// The gradients of the weights are left in `blocks`, that of the bias is returned.
template <typename T, typename Layout>
T* backward(const Layer& layer, Layout& layout, std::vector<Blocks<T>>& blocks, const Sequences<T>& x,
            Sequences<T>& bars) {
  const int64_t g = layer.modules_count(), n = layer.units, o = layer.outputs;
  std::vector<T*> sent(g + 1), own(g), h(g), before(g), error(g);
  std::vector<int64_t> next(g), tick(g);
  T *input = layout.make(layer.inputs), *input_bar = layout.make(layer.inputs), *output_bar = layout.make(std::max(n, o));
  T* delta = layout.make(n);
  for (int64_t j = 0; j <= g; j++) sent[j] = layout.make(layer.columns());
  for (int64_t j = 0; j < g; j++) {
    const Module& m = layer.modules[j];
    h[j] = layout.make(m.size), before[j] = layout.make(m.size), error[j] = layout.make(m.size);
    own[j] = m.apart ? layout.make(o + m.start) : nullptr;
    tick[j] = m.ticks;
    next[j] = m.ticks ? m.first + (m.ticks - 1) * m.period : -1;
    layout.read(error[j], x.last, 0, n, m.start, m.size);
    layout.read(h[j], x.values[j], m.ticks, m.size, 0, m.size);
  }
  // The transpose of `send`.
  auto back = [&](int64_t j, bool moved) {
    const Module& m = layer.modules[j];
    if (!m.apart) {
      layout.back(error[j], blocks[j].out, h[j], sent[j], sent[j + 1]);
      return;
    }
    layout.add(own[j], sent[j], o + m.start);
    layout.add(sent[j + 1], sent[j], o + m.start);
    layout.zero(sent[j], o + m.start);
    if (moved) {
      layout.back(error[j], blocks[j].out, h[j], own[j]);
      layout.zero(own[j], o + m.start);
    }
  };
  for (int64_t t = layer.steps - 1; t >= 0; t--) {
    int64_t slowest = -1;
    for (int64_t j = 0; j < g; j++)
      if (next[j] == t) slowest = j;
    if (o) {
      layout.read(output_bar, x.outputs, t, o, 0, o);
      layout.add(sent[0], output_bar, o);
    } else {
      layout.read(output_bar, x.outputs, t, n, 0, n);
      for (int64_t j = 0; j < g; j++)
        layout.add(error[j], layout.at(output_bar, layer.modules[j].start), layer.modules[j].size);
    }
    for (int64_t j = 0; j <= slowest; j++) back(j, next[j] == t);
    if (layer.has_inputs) {
      layout.zero(input_bar, layer.inputs);
      if (slowest >= 0) layout.read(input, x.inputs, t, layer.inputs, 0, layer.inputs);
    }
    for (int64_t j = 0; j <= slowest; j++) {
      if (next[j] != t) continue;
      const Module& m = layer.modules[j];
      layout.slope(delta, error[j], h[j], m.size);
      layout.add(layout.at(sent[j + 1], o + m.start), delta, m.size);
      layout.read(before[j], x.values[j], --tick[j], m.size, 0, m.size);
      if (tick[j]) layout.expect(x.values[j], tick[j] - 1, m.size);
      std::swap(h[j], before[j]);
      layout.zero(error[j], m.size);
      layout.back(error[j], blocks[j].own, h[j], delta);
      if (layer.has_inputs) layout.back(bars.inputs ? input_bar : nullptr, blocks[j].in, input, delta);
      next[j] -= m.period;
    }
    if (bars.inputs && layer.has_inputs) layout.write(bars.inputs, input_bar, t, layer.inputs, 0, layer.inputs);
  }
  for (int64_t j = 0; j < g; j++) {
    back(j, true);
    layout.write(bars.hidden, error[j], 0, n, layer.modules[j].start, layer.modules[j].size);
  }
  return layout.at(sent[g], o);
}

// --- Calls -------------------------------------------------------------------------------------------------------

template <typename T>
Parameters<T> offset(Parameters<T> p, const Layer& layer, int64_t outer) {
  const int64_t n = layer.units, r = layer.runs;
  p.input += outer * layer.inputs * n * r;
  p.bias += outer * n * r;
  if (layer.outputs) p.readout += outer * n * layer.outputs * r;
  for (int64_t j = 0; j < layer.modules_count(); j++) {
    const Module& m = layer.modules[j];
    p.recurrent[j] += outer * m.size * (m.start + m.size) * r;
  }
  return p;
}

template <typename T>
Sequences<T> offset(Sequences<T> x, const Layer& layer, int64_t outer) {
  const int64_t each = outer * layer.batch * layer.runs, width = layer.outputs ? layer.outputs : layer.units;
  if (x.inputs) x.inputs += each * layer.steps * layer.inputs;
  if (x.outputs) x.outputs += each * layer.steps * width;
  if (x.hidden) x.hidden += each * layer.units;
  if (x.last) x.last += each * layer.units;
  for (size_t j = 0; j < x.values.size(); j++) x.values[j] += each * (layer.modules[j].ticks + 1) * layer.modules[j].size;
  return x;
}

// How many threads are worth waking for a call.
int64_t threads_for(const Layer& layer, ffi::ThreadPool& pool) {
  constexpr double kWorth = 1e5;  // multiply-adds: some ten microseconds
  double work = 0;
  for (const Module& m : layer.modules)
    work += double(m.ticks + 1) * m.size * (m.size + m.start + layer.outputs + layer.inputs);
  work *= double(layer.outer) * layer.batch * layer.runs;
  return std::clamp<int64_t>(std::min(work / kWorth, 1e6), 1, std::max<int64_t>(pool.num_threads(), 1));
}

// The sequences of a batch that one thread takes: all of them if there are networks enough for all threads.
int64_t rows_of_a_share(const Layer& layer, int64_t threads) {
  const int64_t shares = std::clamp<int64_t>(threads / std::max<int64_t>(layer.outer, 1), 1, std::max<int64_t>(layer.batch, 1));
  return std::max<int64_t>((layer.batch + shares - 1) / shares, 1);
}

// Calls `work(outer, layout)` for each block of runs that are computed side by side. Blocks have half of the lanes where
// there would be fewer blocks than threads, and where the last runs need no more.
template <typename T, typename Work>
void in_blocks(const Layer& layer, ffi::ThreadPool& pool, int64_t threads, const Work& work) {
  constexpr int W = kBytes / sizeof(T);
  const int64_t width = layer.outer * ((layer.runs + W - 1) / W) < threads ? W / 2 : W;
  const int64_t blocks = (layer.runs + width - 1) / width;
  in_parallel(pool, threads, layer.outer * blocks, [&](int64_t i) {
    const int64_t first = i % blocks * width, lanes = std::min(width, layer.runs - first);
    if (lanes > W / 2) {
      work(i / blocks, Runs<T, W>{layer.runs, layer.batch, first, 0, lanes, nullptr});
    } else {
      work(i / blocks, Runs<T, W / 2>{layer.runs, layer.batch, first, 0, lanes, nullptr});
    }
  });
}

template <typename T>
void forward_all(const Layer& layer, ffi::ThreadPool& pool, bool runs_last, const Parameters<T>& p,
                 const Sequences<T>& x) {
  const int64_t threads = threads_for(layer, pool);
  if (runs_last) {
    in_blocks<T>(layer, pool, threads, [&](int64_t outer, auto layout) {
      const auto mine = offset(p, layer, outer);
      const auto theirs = offset(x, layer, outer);
      Arena<T> weights;
      layout.arena = &weights;
      const auto packs = packed<T>(layer, layout, mine, false);
      for (layout.row = 0; layout.row < layer.batch; layout.row++) {
        Arena<T> arena;
        layout.arena = &arena;
        forward<T>(layer, layout, packs, mine.bias, theirs);
      }
    });
    return;
  }
  const int64_t share = rows_of_a_share(layer, threads), shares = (layer.batch + share - 1) / share;
  in_parallel(pool, threads, layer.outer * shares, [&](int64_t i) {
    const int64_t outer = i / shares, row = i % shares * share;
    const auto mine = offset(p, layer, outer);
    Arena<T> arena;
    Rows<T> layout{layer.batch, row, std::min(share, layer.batch - row), 0, &arena};
    layout.stride = padded(std::max(layer.columns(), layer.inputs), Rows<T>::W) + Rows<T>::W;
    forward<T>(layer, layout, packed<T>(layer, layout, mine, false), mine.bias, offset(x, layer, outer));
  });
}

template <typename T>
void backward_all(const Layer& layer, ffi::ThreadPool& pool, bool runs_last, const Parameters<T>& p,
                  const Sequences<T>& x, const Parameters<T>& p_bars, const Sequences<T>& bars) {
  const int64_t threads = threads_for(layer, pool);
  if (runs_last) {
    in_blocks<T>(layer, pool, threads, [&](int64_t outer, auto layout) {
      auto p_bar = offset(p_bars, layer, outer);
      auto bar = offset(bars, layer, outer);
      const auto theirs = offset(x, layer, outer);
      Arena<T> weights;
      layout.arena = &weights;
      auto packs = packed<T>(layer, layout, offset(p, layer, outer), true);
      T* bias = layout.make(layer.units);
      for (layout.row = 0; layout.row < layer.batch; layout.row++) {
        Arena<T> arena;
        layout.arena = &arena;
        layout.add(bias, backward<T>(layer, layout, packs, theirs, bar), layer.units);
      }
      unpacked<T>(layer, layout, packs, p_bar);
      layout.write_bias(p_bar.bias, bias, layer.units);
    });
    return;
  }
  const int64_t share = rows_of_a_share(layer, threads), shares = (layer.batch + share - 1) / share;
  struct Result {
    Arena<T> arena;
    Rows<T> layout;
    std::vector<Blocks<T>> packs;
    T* bias;
  };
  std::vector<Result> results(layer.outer * shares);
  auto collect = [&](int64_t i) {
    auto p_bar = offset(p_bars, layer, i / shares);
    unpacked<T>(layer, results[i].layout, results[i].packs, p_bar);
    results[i].layout.write_bias(p_bar.bias, results[i].bias, layer.units);
  };
  in_parallel(pool, threads, layer.outer * shares, [&](int64_t i) {
    const int64_t outer = i / shares, row = i % shares * share;
    auto bar = offset(bars, layer, outer);
    Result& r = results[i];
    r.layout = Rows<T>{layer.batch, row, std::min(share, layer.batch - row), 0, &r.arena};
    r.layout.stride = padded(std::max(layer.columns(), layer.inputs), Rows<T>::W) + Rows<T>::W;
    r.packs = packed<T>(layer, r.layout, offset(p, layer, outer), true);
    r.bias = backward<T>(layer, r.layout, r.packs, offset(x, layer, outer), bar);
  });
  for (int64_t i = 0; i < layer.outer * shares; i++) collect(i);  // in this order, so that sums are the same each time
}

// What both calls are told: the modules' sizes, first ticks and periods, the number of steps, whether the last axis of
// every array is the runs, and which optional arrays there are.
struct Told {
  ffi::Span<const int64_t> sizes, first, periods;
  int64_t steps;
  bool runs_last, has_readout, has_inputs;
};

// The arrays begin: input weights, bias, state, recurrent weights, then readout and inputs if there are any.
Layer layer_of(const Told& told, ffi::RemainingArgs& args) {
  Layer layer;
  layer.steps = told.steps;
  const int64_t g = told.sizes.size();
  int64_t start = 0;
  for (int64_t j = 0; j < g; j++) {
    Module m{told.sizes[j], start, told.first[j], told.periods[j], 0, false};
    m.ticks = m.first < layer.steps ? (layer.steps - m.first + m.period - 1) / m.period : 0;
    layer.modules.push_back(m);
    start += m.size;
  }
  for (int64_t j = 0; j < g; j++)
    for (int64_t i = j + 1; i < g; i++) {
      const Module &fast = layer.modules[j], &slow = layer.modules[i];
      const bool nested = (slow.ticks < 2 || slow.period % fast.period == 0) && slow.first >= fast.first &&
                          (slow.first - fast.first) % fast.period == 0;
      if (slow.ticks && !nested) layer.modules[j].apart = true;
    }
  layer.units = start;
  auto dims = [&](size_t i) { return args.get<ffi::AnyBuffer>(i)->dimensions(); };
  const auto input = dims(0);
  layer.runs = told.runs_last ? input.back() : 1;
  layer.inputs = input[input.size() - (told.runs_last ? 3 : 2)];
  auto count = [&](size_t i) { return static_cast<int64_t>(args.get<ffi::AnyBuffer>(i)->element_count()); };
  layer.outer = layer.runs ? count(1) / (layer.units * layer.runs) : 0;
  layer.batch = layer.outer ? count(2) / (layer.outer * layer.units * layer.runs) : 0;
  layer.outputs = told.has_readout && layer.outer ? count(3 + g) / (layer.outer * layer.units * layer.runs) : 0;
  layer.has_inputs = told.has_inputs && layer.inputs;
  return layer;
}

template <typename T>
T* pointer(ffi::RemainingArgs& args, size_t i) {
  return static_cast<T*>(args.get<ffi::AnyBuffer>(i)->untyped_data());
}
template <typename T>
T* pointer(ffi::RemainingRets& results, size_t i) {
  return static_cast<T*>((*results.get<ffi::AnyBuffer>(i))->untyped_data());
}

template <typename T>
void forward_call(const Told& told, ffi::ThreadPool& pool, ffi::RemainingArgs& args, ffi::RemainingRets& results) {
  const Layer layer = layer_of(told, args);
  const int64_t g = layer.modules_count();
  Parameters<T> p{pointer<T>(args, 0), pointer<T>(args, 1), nullptr, {}};
  Sequences<T> x{nullptr, pointer<T>(results, 0), pointer<T>(args, 2), pointer<T>(results, 1), {}};
  for (int64_t j = 0; j < g; j++) p.recurrent.push_back(pointer<T>(args, 3 + j));
  for (int64_t j = 0; j < g; j++) x.values.push_back(pointer<T>(results, 2 + j));
  size_t at = 3 + g;
  if (told.has_readout) p.readout = pointer<T>(args, at++);
  if (told.has_inputs) x.inputs = pointer<T>(args, at++);
  forward_all<T>(layer, pool, told.runs_last, p, x);
}

template <typename T>
void backward_call(const Told& told, ffi::ThreadPool& pool, ffi::RemainingArgs& args, ffi::RemainingRets& results) {
  const Layer layer = layer_of(told, args);
  const int64_t g = layer.modules_count();
  Parameters<T> p{pointer<T>(args, 0), pointer<T>(args, 1), nullptr, {}};
  Parameters<T> p_bar{pointer<T>(results, 0), pointer<T>(results, 1), nullptr, {}};
  Sequences<T> x{nullptr, nullptr, nullptr, pointer<T>(args, 2), {}};
  Sequences<T> bar{nullptr, nullptr, pointer<T>(results, 2), nullptr, {}};
  for (int64_t j = 0; j < g; j++) p.recurrent.push_back(pointer<T>(args, 3 + j));
  for (int64_t j = 0; j < g; j++) p_bar.recurrent.push_back(pointer<T>(results, 3 + j));
  size_t at = 3 + g, to = 3 + g;
  if (told.has_readout) p.readout = pointer<T>(args, at++), p_bar.readout = pointer<T>(results, to++);
  if (told.has_inputs) x.inputs = pointer<T>(args, at++);
  if (told.has_inputs && to < results.size()) bar.inputs = pointer<T>(results, to++);  // if it is asked for
  x.outputs = pointer<T>(args, at++);
  for (int64_t j = 0; j < g; j++) x.values.push_back(pointer<T>(args, at++));
  for (size_t i = 0; i < results.size(); i++) {
    auto buffer = *results.get<ffi::AnyBuffer>(i);
    std::memset(buffer->untyped_data(), 0, buffer->size_bytes());
  }
  backward_all<T>(layer, pool, told.runs_last, p, x, p_bar, bar);
}

ffi::Error dispatch(bool is_forward, ffi::ThreadPool& pool, const Told& told, ffi::RemainingArgs& args,
                    ffi::RemainingRets& results) {
  const auto type = args.get<ffi::AnyBuffer>(1)->element_type();
  if (type == ffi::DataType::F32) {
    (is_forward ? forward_call<float> : backward_call<float>)(told, pool, args, results);
  } else if (type == ffi::DataType::F64) {
    (is_forward ? forward_call<double> : backward_call<double>)(told, pool, args, results);
  } else {
    return ffi::Error::InvalidArgument("clockwork: the native kernels compute in float32 or float64");
  }
  return ffi::Error::Success();
}

template <bool is_forward>
ffi::Error call(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets results,
                ffi::Span<const int64_t> sizes, ffi::Span<const int64_t> first, ffi::Span<const int64_t> periods,
                int64_t steps, bool runs_last, bool has_readout, bool has_inputs) {
  const Told told{sizes, first, periods, steps, runs_last, has_readout, has_inputs};
  return dispatch(is_forward, pool, told, args, results);
}

}  // namespace

#define CLOCKWORK_HANDLER(name, is_forward)                 \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, call<is_forward>,     \
                                ffi::Ffi::Bind()            \
                                    .Ctx<ffi::ThreadPool>() \
                                    .RemainingArgs()        \
                                    .RemainingRets()        \
                                    .Attr<ffi::Span<const int64_t>>("sizes")   \
                                    .Attr<ffi::Span<const int64_t>>("first")   \
                                    .Attr<ffi::Span<const int64_t>>("periods") \
                                    .Attr<int64_t>("steps")     \
                                    .Attr<bool>("runs_last")    \
                                    .Attr<bool>("has_readout")  \
                                    .Attr<bool>("has_inputs"))

CLOCKWORK_HANDLER(clockwork_cascade_forward, true);
CLOCKWORK_HANDLER(clockwork_cascade_backward, false);
