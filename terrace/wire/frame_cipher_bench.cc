// Sealing and opening a frame, one thread, against AES-256-GCM alone over the same bytes: what
// deriving a key and both checksums cost.
//   frame_cipher_bench [--runs=N] [crypt.seal|crypt.open …]
#include <openssl/evp.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/testing/bench_json.h"
#include "terrace/wire/frame_cipher.h"

namespace terrace::wire {
namespace {

constexpr std::size_t kBytesPerSample = std::size_t{96} << 20U;

void gcm_alone(std::span<const std::byte> source, std::span<std::byte> target, bool is_encrypting) {
  const std::array<std::uint8_t, 32> key{1};
  const std::array<std::uint8_t, 12> nonce{2};
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  int moved = 0;
  EVP_CipherInit_ex(context, EVP_aes_256_gcm(), nullptr, key.data(), nonce.data(),
                    is_encrypting ? 1 : 0);
  EVP_CipherUpdate(context, reinterpret_cast<std::uint8_t*>(target.data()), &moved,
                   reinterpret_cast<const std::uint8_t*>(source.data()),
                   static_cast<int>(source.size()));
  EVP_CIPHER_CTX_free(context);
}

struct Rig {
  explicit Rig(std::size_t bytes) : plain(bytes, std::byte{3}), stored(bytes) {
    header.payload_bytes = bytes;
    header.payload_checksum = checksum_of(plain);
    ring.add(*parse_master_key(std::string(64, '5')));
    keys = *NamespaceKeys::derive(ring, header.content_digest, header.layout_digest);
  }
  void seal() {
    FrameHeader made = header;
    testing::keep(seal_frame(keys->current(), FrameSalt::random(), plain, stored, made).is_ok());
    sealed = made;
  }
  FrameHeader header;
  FrameHeader sealed;
  KeyRing ring;
  std::optional<NamespaceKeys> keys;
  std::vector<std::byte> plain;
  std::vector<std::byte> stored;
};

void bench(std::size_t bytes, bool is_sealing, int runs, const testing::Machine& machine) {
  Rig rig(bytes);
  rig.seal();
  const std::vector<std::byte> kept = rig.stored;
  std::vector<std::byte> work = kept;
  const std::size_t times = kBytesPerSample / bytes;
  const SystemClock clock;
  const auto rate = [&](const auto& once) {
    return static_cast<double>(times * bytes) / testing::seconds_of(clock, [&] {
             for (std::size_t i = 0; i < times; ++i) once();
           });
  };
  const auto frames = [&] {
    if (is_sealing) return rate([&] { rig.seal(); });
    // Opened bytes do not open again: each gets its own copy, and so does the limit.
    return rate([&] {
      std::ranges::copy(kept, work.begin());
      testing::keep(open_frame(rig.keys->current(), rig.sealed, work)->verdict);
    });
  };
  const auto alone = [&] {
    return rate([&] {
      if (!is_sealing) std::ranges::copy(kept, work.begin());
      gcm_alone(is_sealing ? rig.plain : work, is_sealing ? rig.stored : work, is_sealing);
    });
  };
  const auto samples = testing::alternate(runs, {frames, alone});
  testing::BenchResult result;
  result.name = is_sealing ? "crypt.seal" : "crypt.open";
  result.unit = "bytes/s";
  result.higher_is_better = true;
  result.samples = samples[0];
  result.limit_name = "AES-256-GCM of the same bytes";
  result.limit_samples = samples[1];
  result.param("bytes", static_cast<std::int64_t>(bytes));
  testing::print(result, machine);
}

}  // namespace
}  // namespace terrace::wire

int main(int count, char** arguments) {
  int runs = 21;
  std::vector<std::string> names;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument.starts_with("--runs=")) {
      runs = std::atoi(argument.substr(7).c_str());
    } else {
      names.push_back(argument);
    }
  }
  const auto wants = [&](std::string_view name) {
    return names.empty() || std::ranges::any_of(names, [&](const std::string& wanted) {
             return name.starts_with(wanted);
           });
  };
  const auto machine = terrace::testing::machine_facts();
  for (const std::size_t bytes :
       {std::size_t{96} << 10U, std::size_t{768} << 10U, std::size_t{3} << 20U}) {
    if (wants("crypt.seal")) terrace::wire::bench(bytes, true, runs, machine);
    if (wants("crypt.open")) terrace::wire::bench(bytes, false, runs, machine);
  }
}
