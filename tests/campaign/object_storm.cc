#include "campaign/object_storm.h"

#include <fmt/format.h>

#include <algorithm>

namespace terrace::campaign {

namespace {
constexpr std::size_t kMostUnderWay = 16;
}

ObjectStorm::ObjectStorm(std::string name, Maker make, std::uint64_t seed, Figures& figures)
    : name_(std::move(name)),
      make_(std::move(make)),
      rng_(seed),
      figures_(figures),
      memory_(kNodes),
      nodes_(kNodes) {
  options_.layout.block_tokens = Tokens(16);
  options_.layout.ranks = 2;
  options_.layout.groups = {{GroupId(0), {Bytes(4096)}}, {GroupId(1), {Bytes(5000)}}};
  options_.fingerprint.content = {{"model", "a"}};
  options_.fingerprint.layout = {{"block_tokens", "16"}};
  options_.pack_blocks = kPackBlocks;
  options_.known_blocks = 24;  // Fewer than there are: what ages out is asked for again.
  options_.present_for = milliseconds(200);
  options_.absent_for = milliseconds(5);
  options_.write_time = milliseconds(800);
  options_.queue.first_pause = milliseconds(1);
  options_.queue.longest_pause = milliseconds(4);
  options_.queue.rest = milliseconds(5);
  for (std::uint64_t chain = 0; chain < kChains; ++chain) {
    hashes_.push_back(tier::object::chain_of(chain, kPacks * kPackBlocks));
    for (std::size_t node = 0; node < kNodes; ++node) {
      // Of one key, but not of equal bytes: the first pack stays.
      memory_[node].push_back(std::make_unique<ChainMemory>(options_.layout, kPacks * kPackBlocks,
                                                            1 + chain * kNodes + node));
    }
  }
}

void ObjectStorm::find(std::uint64_t& counter, const std::string& what) {
  figures_.find(counter, fmt::format("object tier over {}: {}", name_, what));
}

void ObjectStorm::run(int rounds, int steps, const std::function<void()>& calm) {
  const std::size_t descriptors = open_descriptors();
  const std::size_t threads = live_threads();
  for (int i = 0; i < rounds && figures_.findings.empty(); ++i) {
    round(steps, i + 1 == rounds ? calm : std::function<void()>());
  }
  if (calm) return;  // A server of the test has descriptors and threads of its own.
  if (open_descriptors() != descriptors) find(figures_.leaks, "descriptors are left open");
  if (!are_threads_back_to(threads)) find(figures_.leaks, "threads are left");
}

transfer::ObjectFaultRates ObjectStorm::drawn_rates() {
  const auto some = [&] { return static_cast<unsigned>(rng_.below(6)); };
  transfer::ObjectFaultRates rates;
  rates.error = some();
  rates.busy = some() / 2;
  rates.full = some();
  rates.flipped = 2 + some();
  rates.short_object = some();
  rates.misplaced = 2 + some();
  rates.landed_and_failed = some();
  rates.falsely_there = some();
  rates.delayed = some();
  rates.lost = some() / 4;
  rates.cut = some();
  rates.broken = some();
  rates.falsely_absent = some();
  rates.stale_list = 10 * some();
  rates.duplicated = 2 * some();
  rates.reordered = 2 * some();
  return rates;
}

void ObjectStorm::open(Node& node) {
  auto faults = std::make_unique<transfer::FaultStore>(make_(clock_), rng_.next());
  node.faults = faults.get();
  node.faults->set_rates(drawn_rates());
  node.was_reset = false;
  options_.queue.seed = rng_.next() | 1U;
  auto tier = tier::ObjectTier::create(options_, std::move(faults), clock_, log_);
  if (!tier) return find(figures_.lost_sealed, "it does not open: " + tier.error().text());
  node.tier = *std::move(tier);
}

void ObjectStorm::round(int steps, const std::function<void()>& calm) {
  for (Node& node : nodes_) open(node);
  for (int i = 0; i < steps && figures_.findings.empty(); ++i) step();
  if (calm) calm();
  end_faults();
  for (Node& node : nodes_) {
    for (int kind = 0; kind < transfer::kObjectFaultCount; ++kind) {
      const auto fault = static_cast<transfer::ObjectFault>(kind);
      figures_.inject(name_, std::string(to_string(fault)), node.faults->injected(fault));
    }
    node = {};
  }
}

void ObjectStorm::step() {
  const std::size_t index = rng_.below(kNodes);
  Node& node = nodes_[index];
  if (!node.tier->is_open() && node.tier->is_idle()) clock_.jump(seconds(6));
  if (rng_.below(400) == 0) {
    node.faults->hold(true);
    figures_.inject(name_, "hang");
  } else if (rng_.below(30) == 0) {
    node.faults->hold(false);
  }
  if (rng_.below(200) == 0) clock_.jump(milliseconds(static_cast<std::int64_t>(rng_.below(300))));
  if (node.faults->lost() > 2) node.faults->release_lost();
  if (rng_.below(3000) == 0) {
    node.tier->forget_all();
    node.was_reset = true;
  }
  if (under_way_.size() < kMostUnderWay) {
    const std::uint64_t kind = rng_.below(10);
    if (kind < 2) write(index);
    if (kind >= 2 && kind < 8) read(index);
    if (kind >= 8) {
      const std::uint64_t token = next_token_++;
      const Nanoseconds deadline =
          clock_.now() + milliseconds(10 + static_cast<std::int64_t>(rng_.below(150)));
      const auto& chain = hashes_[rng_.below(kChains)];
      ++figures_.operations;
      if (node.tier->begin_probe(token, chain, deadline).is_ok()) {
        under_way_.emplace(token, Pending{index, {}});
      }
    }
  } else {
    node.tier->wait(milliseconds(1));
  }
  for (std::size_t i = 0; i < kNodes; ++i) poll(i);
}

void ObjectStorm::read(std::size_t index) {
  Node& node = nodes_[index];
  Read read;
  read.chain = rng_.below(kChains);
  read.block = rng_.below(kPacks * kPackBlocks);
  read.group = static_cast<std::uint16_t>(rng_.below(2));
  const SequenceHash& hash = hashes_[read.chain][read.block];
  ++figures_.operations;
  if (!node.tier->contains(GroupId(read.group), hash)) return;
  read.memory = std::make_unique<ChainMemory>(options_.layout, 1, 0);
  const std::uint64_t token = next_token_++;
  const Nanoseconds deadline =
      clock_.now() + milliseconds(10 + static_cast<std::int64_t>(rng_.below(150)));
  const Status status =
      node.tier->begin_read(token, GroupId(read.group), hash, read.memory->at(0, read.group).ranks,
                            static_cast<transfer::IoClass>(rng_.below(2)), deadline);
  if (status.is_ok()) under_way_.emplace(token, Pending{index, std::move(read)});
}

void ObjectStorm::write(std::size_t index) {
  const std::uint64_t chain = rng_.below(kChains);
  const std::uint64_t first = rng_.below(kPacks) * kPackBlocks;
  const std::uint64_t token = next_token_++;
  ++figures_.operations;
  const Status status =
      nodes_[index].tier->begin_write(token, std::span(hashes_[chain]).subspan(first, kPackBlocks),
                                      memory_[index][chain]->range(first, kPackBlocks));
  if (status.is_ok()) under_way_.emplace(token, Pending{index, {}});
}

void ObjectStorm::poll(std::size_t index) {
  std::vector<tier::ObjectDone> done;
  nodes_[index].tier->poll(done);
  for (const tier::ObjectDone& item : done) finish(index, item);
}

void ObjectStorm::finish(std::size_t index, const tier::ObjectDone& done) {
  auto node = under_way_.extract(done.token);
  if (node.empty()) return find(figures_.leaks, "an operation ended twice");
  const Pending& pending = node.mapped();
  if (pending.read && done.status.is_ok()) judge(nodes_[index], *pending.read, done);
}

void ObjectStorm::judge(const Node& node, const Read& read, const tier::ObjectDone& done) {
  if (node.was_reset) return find(figures_.wrong_bytes, "a block of before the reset");
  const tier::PackShards& got = read.memory->at(0, read.group);
  const bool is_right = std::ranges::any_of(memory_, [&](const auto& chains) {
    const tier::PackShards& wanted = chains[read.chain]->at(read.block, read.group);
    return ChainMemory::same(got, wanted) && done.checksums == wanted.checksums;
  });
  if (!is_right) {
    find(figures_.wrong_bytes, fmt::format("wrong bytes of block {} of chain {}, group {}",
                                           read.block, read.chain, read.group));
  }
}

void ObjectStorm::end_faults() {
  for (Node& node : nodes_) {
    node.faults->set_rates({});
    node.faults->hold(false);
  }
  const auto in_flight = [](const Node& node) {
    return node.faults->in_flight() + node.faults->inner().in_flight();
  };
  // What nobody waits for may be under way in a tier that is idle: it ends as well.
  const auto is_over = [&] {
    return under_way_.empty() && std::ranges::all_of(nodes_, [&](const Node& node) {
             return node.tier->is_idle() && in_flight(node) == 0;
           });
  };
  const SystemClock system;
  const Nanoseconds limit = system.now() + seconds(30);
  while (!is_over() && system.now() < limit) {
    clock_.jump(milliseconds(20));
    for (std::size_t i = 0; i < kNodes; ++i) {
      nodes_[i].faults->release_lost();
      nodes_[i].tier->wait(milliseconds(1));
      poll(i);
    }
  }
  if (!is_over()) find(figures_.hangs, fmt::format("{} do not end", under_way_.size()));
  for (const Node& node : nodes_) {
    if (in_flight(node) > 0) find(figures_.leaks, "requests stay in flight");
  }
  under_way_.clear();
}

}  // namespace terrace::campaign
