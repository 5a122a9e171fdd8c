// lookup.plan: from prompt tokens to a load plan with everything pinned: hashing, probing,
// planning, pinning. lookup.plan.ledger: the same and on to the request's end, with its ledger. The
// limit is SHA-256 alone over the same bytes: nothing may be hashed twice, and the rest should hide
// beside it.
//   plan_bench [runs]
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "terrace/block/digest.h"
#include "terrace/manager/core_rig_internal.h"
#include "terrace/testing/bench_json.h"

namespace terrace::manager {
namespace {

constexpr std::uint64_t kBlockTokens = 32;
// Domain, counts and parent stand before a block's tokens (docs/formats/sequence-hash.md).
constexpr std::size_t kHeadBytes = 40;

Options make_options(std::uint64_t blocks) {
  Options options;
  options.layout.block_tokens = Tokens(kBlockTokens);
  GroupLayout group;
  group.piece_bytes = {Bytes(4096)};
  options.layout.groups = {group};
  options.host.blocks = 2 * blocks;  // Half of the slots may be pinned by waiting requests.
  options.host.huge_pages = false;
  options.offload_step_bytes = 1_GiB;
  return options;
}

class Bench {
 public:
  explicit Bench(std::uint64_t blocks)
      : options_(make_options(blocks)),
        ledgers_(options_.ledgers_kept, clock_),
        core_(options_, 1, counters_, answers_, ledgers_, clock_.now()),
        tokens_(blocks * kBlockTokens) {
    std::iota(tokens_.begin(), tokens_.end(), 0U);
    tier::HostTier::Options host;
    host.layout = options_.layout;
    host.blocks = options_.host.blocks;
    host.huge_pages = false;
    auto made = tier::HostTier::create(host);
    if (!made) throw std::runtime_error(made.error().message());
    core_.open_host(std::move(*made));
    core_.close_lower("", false);
    open();
    store();
    for (std::uint64_t block = 0; block < blocks; ++block) {
      std::vector<std::uint8_t> message(kHeadBytes + kBlockTokens * sizeof(std::uint32_t));
      std::memcpy(message.data() + kHeadBytes, tokens_.data() + block * kBlockTokens,
                  kBlockTokens * sizeof(std::uint32_t));
      messages_.push_back(std::move(message));
    }
  }

  double plan() {
    Request* request = nullptr;
    const double spent = testing::seconds_of(clock_, [&] { request = &find(); });
    (void)core_.end_request(*request, clock_.now());
    rest();
    return spent;
  }
  double plan_and_ledger() {
    const double spent = testing::seconds_of(clock_, [&] {
      Request& request = find();
      testing::keep(core_.end_request(request, clock_.now()).prompt.value());
    });
    rest();
    return spent;
  }
  double hash_alone() {
    return testing::seconds_of(clock_, [&] {
      Digest digest;
      for (const auto& message : messages_) {
        digest.add_field({reinterpret_cast<const char*>(message.data()), message.size()});
        testing::keep(digest.finish()[0]);
      }
    });
  }

 private:
  Request& find() {
    Request& request = begin();
    const MatchAnswer answer = core_.poll(request, Tokens(0), Tokens(tokens_.size()), clock_.now());
    if (answer.external != Tokens(tokens_.size())) throw std::runtime_error("not all of it found");
    return request;
  }
  // Lets go of what was pinned; not part of the measure.
  void rest() {
    for (int i = 0; i < 1000; ++i) core_.tick(clock_.now());
  }
  Request& begin() {
    auto request = std::make_unique<Request>(RequestId(++last_request_), Tokens(kBlockTokens),
                                             std::vector<ExtraKey>{});
    request->chain.append(tokens_);
    return core_.add_request(std::move(request), clock_.now());
  }
  void open() {
    core_.on_attach({.change = attach::AttachChange::kAttached,
                     .rank = RankId(0),
                     .epoch = Epoch(1),
                     .detail = {}},
                    clock_.now());
    const auto orders = core_.build_orders(clock_.now());
    wire::Report report;
    report.owner = 1;
    report.epoch = Epoch(1);
    report.step = orders.value().step;
    report.canary = wire::CanaryResult::kPassed;
    if (!core_.take_report(report, clock_.now()).is_ok()) throw std::runtime_error("no canary");
  }
  void store() {
    Request& request = begin();
    for (const SequenceHash& hash : request.chain.hashes()) {
      (void)core_.context().reserve(core_.context().key_of(GroupId(0), hash)).value().seal();
    }
    (void)core_.end_request(request, clock_.now());
  }

  const Options options_;
  SystemClock clock_;
  Counters counters_;
  AnswerBoard answers_;
  LedgerRing ledgers_;
  Core core_;
  std::vector<std::uint32_t> tokens_;
  std::vector<std::vector<std::uint8_t>> messages_;
  std::uint64_t last_request_ = 0;
};

void run(std::uint64_t tokens, int runs, const testing::Machine& machine) {
  Bench bench(tokens / kBlockTokens);
  const auto samples =
      testing::alternate(runs, {[&] { return bench.plan(); }, [&] { return bench.hash_alone(); },
                                [&] { return bench.plan_and_ledger(); }});
  const auto print = [&](std::string name, const std::vector<double>& values) {
    testing::BenchResult result{.name = std::move(name),
                                .unit = "s",
                                .higher_is_better = false,
                                .samples = values,
                                .limit_name = "SHA-256 of the same bytes",
                                .limit_samples = samples[1],
                                .params = {}};
    result.param("tokens", static_cast<std::int64_t>(tokens))
        .param("block_tokens", static_cast<std::int64_t>(kBlockTokens));
    testing::print(result, machine);
  };
  print("lookup.plan", samples[0]);
  print("lookup.plan.ledger", samples[2]);
}

}  // namespace
}  // namespace terrace::manager

int main(int count, char** arguments) {
  const int runs = count > 1 ? std::atoi(arguments[1]) : 41;
  const auto machine = terrace::testing::machine_facts();
  for (const std::uint64_t tokens : {8UL << 10U, 128UL << 10U, 1UL << 20U}) {
    terrace::manager::run(tokens, runs, machine);
  }
}
