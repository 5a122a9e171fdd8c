// From token ids to block hashes, against SHA-256 alone over messages prepared beforehand: what the
// chain costs beyond the hashing that it is made of.
//   sequence_hash_bench [runs]
#include <cstdlib>
#include <numeric>
#include <vector>

#include "terrace/block/sequence_hash.h"
#include "terrace/block/sequence_hash_internal.h"
#include "terrace/block/sha256_internal.h"
#include "terrace/testing/bench_json.h"

namespace terrace {
namespace {

constexpr std::size_t kBlockTokens = 32;

void bench(std::size_t count, int runs, const testing::Machine& machine) {
  std::vector<std::uint32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 0U);
  std::vector<std::vector<std::uint8_t>> messages(count / kBlockTokens);
  for (std::size_t block = 0; block < messages.size(); ++block) {
    sequence_hash_internal::encode_block(
        messages[block], {}, block, std::span(tokens).subspan(block * kBlockTokens, kBlockTokens),
        {});
  }
  const SystemClock clock;
  const auto chain = [&] {
    return testing::seconds_of(clock, [&] {
      SequenceChain hashes(Tokens(kBlockTokens), {});
      hashes.append(tokens);
      testing::keep(hashes.hashes().back().low);
    });
  };
  const auto alone = [&] {
    return testing::seconds_of(clock, [&] {
      for (const auto& message : messages) testing::keep(sha256(message)[0]);
    });
  };
  const auto samples = testing::alternate(runs, {chain, alone});
  testing::BenchResult result;
  result.name = "hash.chain";
  result.unit = "s";
  result.higher_is_better = false;
  result.samples = samples[0];
  result.limit_name = "SHA-256 of the same bytes";
  result.limit_samples = samples[1];
  result.param("tokens", static_cast<std::int64_t>(count))
      .param("block_tokens", static_cast<std::int64_t>(kBlockTokens));
  testing::print(result, machine);
}

}  // namespace
}  // namespace terrace

int main(int count, char** arguments) {
  const int runs = count > 1 ? std::atoi(arguments[1]) : 41;
  const auto machine = terrace::testing::machine_facts();
  for (const std::size_t tokens : {8UL << 10U, 128UL << 10U, 1UL << 20U}) {
    terrace::bench(tokens, runs, machine);
  }
}
