// A rank in a process of its own, driven by a test over two pipes (file descriptors 0 and 1):
//   attach_worker <attach directory> <engine id> <rank> <ranks> <piece bytes>
// Request: operation (1 byte), length (u32), bytes. Reply: code (u32), length (u32), bytes.
//   a  attached? code 0, else 4 and the problem    f  fill block (u32) from seed (u64)
//   c  checksum of block (u32)                     o  run orders: count (u32), failed blocks,
//   reports s  stop for ever in the n-th save (u32): replies code 77 when there
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/base/sync_point.h"
#include "terrace/worker/worker.h"

namespace terrace {
namespace {

constexpr std::uint32_t kBlocks = 32;
constexpr std::size_t kLayers = 6;
constexpr std::uint32_t kStopped = 77;

bool read_all(void* target, std::size_t bytes) {
  auto* at = static_cast<char*>(target);
  while (bytes > 0) {
    const ssize_t got = ::read(0, at, bytes);
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<std::size_t>(got);
  }
  return true;
}

void reply(std::uint32_t code, const std::string& bytes) {
  std::string out(8, '\0');
  const auto length = static_cast<std::uint32_t>(bytes.size());
  std::memcpy(out.data(), &code, 4);
  std::memcpy(out.data() + 4, &length, 4);
  out += bytes;
  for (std::size_t at = 0; at < out.size();) {
    const ssize_t put = ::write(1, out.data() + at, out.size() - at);
    if (put <= 0) ::_exit(3);
    at += static_cast<std::size_t>(put);
  }
}

template <typename T>
T value_at(const std::string& bytes, std::size_t offset) {
  T value{};
  if (offset + sizeof(T) <= bytes.size()) std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

class Engine {
 public:
  explicit Engine(std::size_t piece_bytes)
      : piece_(piece_bytes), memory_(piece_ * kLayers * kBlocks) {}
  [[nodiscard]] worker::GroupRegions regions() {
    worker::GroupRegions group;
    group.block_count = kBlocks;
    group.has_null_block = true;
    for (std::size_t i = 0; i < kLayers; ++i) {
      group.regions.push_back({memory_.data() + i * piece_ * kBlocks, piece_, piece_});
    }
    return group;
  }
  void fill(std::uint32_t block, std::uint64_t seed) {
    Rng rng(seed);
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      for (std::size_t i = 0; i < piece_; ++i) {
        piece(layer, block)[i] = static_cast<std::byte>(rng.next());
      }
    }
  }
  [[nodiscard]] Checksum checksum(std::uint32_t block) {
    ShardCopier copier;
    for (std::size_t layer = 0; layer < kLayers; ++layer) copier.add(piece(layer, block), piece_);
    return copier.finish();
  }

 private:
  std::byte* piece(std::size_t layer, std::uint32_t block) {
    return memory_.data() + (layer * kBlocks + block) * piece_;
  }
  std::size_t piece_;
  std::vector<std::byte> memory_;
};

void run_orders(worker::Worker& rank, const std::string& bytes) {
  const auto orders = std::as_bytes(std::span(bytes.data(), bytes.size()));
  const Status canary = rank.run_canary(orders);
  const auto failed = rank.run_loads(orders);
  const Status saves = rank.run_saves(orders);
  if (!failed.has_value()) return reply(static_cast<std::uint32_t>(failed.error().code()), "");
  std::string out(4, '\0');
  const auto count = static_cast<std::uint32_t>(failed->size());
  std::memcpy(out.data(), &count, 4);
  out.append(reinterpret_cast<const char*>(failed->data()), failed->size() * 4);
  reply(static_cast<std::uint32_t>(canary.is_ok() ? saves.code() : canary.code()),
        out + rank.build_report());
}

void stop_in_save(std::uint32_t number) {
  static std::atomic<std::uint32_t> left;
  left = number;
  base::set_sync_point("worker.save.copied", [] {
    if (--left != 0) return;
    reply(kStopped, "");
    for (;;) ::pause();
  });
}

int serve(worker::Worker& rank, Engine& engine) {
  for (;;) {
    char operation = 0;
    std::uint32_t length = 0;
    if (!read_all(&operation, 1) || !read_all(&length, 4)) return 0;
    std::string bytes(length, '\0');
    if (!read_all(bytes.data(), length)) return 0;
    switch (operation) {
      case 'a':
        reply(rank.is_attached() ? 0 : 4, rank.problem());
        break;
      case 'f':
        engine.fill(value_at<std::uint32_t>(bytes, 0), value_at<std::uint64_t>(bytes, 4));
        reply(0, "");
        break;
      case 'c': {
        const Checksum checksum = engine.checksum(value_at<std::uint32_t>(bytes, 0));
        reply(0, std::string(reinterpret_cast<const char*>(&checksum.value), 8));
        break;
      }
      case 'o':
        run_orders(rank, bytes);
        break;
      case 's':
        stop_in_save(value_at<std::uint32_t>(bytes, 0));
        reply(0, "");
        break;
      default:
        return 2;
    }
  }
}

int run(char** arguments) {
  const auto piece = static_cast<std::size_t>(std::stoul(arguments[5]));
  Engine engine(piece);
  worker::Worker::Options options;
  options.attach_directory = arguments[1];
  options.engine_id = arguments[2];
  options.rank = RankId(static_cast<std::uint16_t>(std::stoul(arguments[3])));
  options.layout.ranks = static_cast<std::uint16_t>(std::stoul(arguments[4]));
  options.layout.block_tokens = Tokens(32);
  options.layout.groups = {{GroupId(0), std::vector<Bytes>(kLayers, Bytes(piece))}};
  options.groups = {engine.regions()};
  const SystemClock clock;
  NullLog log;
  const auto rank = worker::Worker::open(std::move(options), clock, log);
  if (!rank.has_value()) return 4;
  return serve(**rank, engine);
}

}  // namespace
}  // namespace terrace

int main(int count, char** arguments) { return count == 6 ? terrace::run(arguments) : 1; }
