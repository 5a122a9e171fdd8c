// What a start costs must not grow with the size of an empty cache. Work is counted, not time:
// bytes and operations that reach the disk, through a backend that grants every allocation for
// nothing.
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <atomic>
#include <filesystem>

#include "scenario/manager_rig.h"

namespace terrace::scenario {
namespace {

struct Work {
  std::atomic<std::uint64_t> writes{0};
  std::atomic<std::uint64_t> written_bytes{0};
  std::atomic<std::uint64_t> read_bytes{0};
};

// Passes on all but allocations, which end as ok; counts what was asked for.
class CountingBackend final : public transfer::Backend {
 public:
  CountingBackend(std::unique_ptr<Backend> inner, Work& work)
      : Backend(inner->depth()), inner_(std::move(inner)), work_(work) {}
  [[nodiscard]] std::string_view name() const override { return inner_->name(); }
  void name_file(int file, const std::string& path) override { inner_->name_file(file, path); }
  void wake() override { inner_->wake(); }

 protected:
  Status start(const transfer::Transfer& transfer) override {
    if (transfer.op == transfer::IoOp::kAllocate) {
      granted_.push_back({transfer, {}});
      return {};
    }
    if (transfer.op == transfer::IoOp::kWrite) {
      ++work_.writes;
      work_.written_bytes += transfer.bytes();
    }
    if (transfer.op == transfer::IoOp::kRead) work_.read_bytes += transfer.bytes();
    transfer::Transfer inner = transfer;
    inner.token = ++last_;
    flights_.emplace(inner.token, transfer);
    return inner_->submit(inner);
  }
  void collect(std::vector<Finished>& finished) override {
    for (Finished& granted : granted_) finished.push_back(std::move(granted));
    granted_.clear();
    done_.clear();
    inner_->poll(done_);
    for (transfer::Completion& completion : done_) {
      auto flight = flights_.extract(completion.token);
      finished.push_back({flight.mapped(), std::move(completion.status)});
    }
  }
  void pause(Nanoseconds limit) override {
    if (granted_.empty()) inner_->wait(limit);
  }

 private:
  std::unique_ptr<Backend> inner_;
  Work& work_;
  std::uint64_t last_ = 0;
  std::map<std::uint64_t, transfer::Transfer> flights_;
  std::vector<Finished> granted_;
  std::vector<transfer::Completion> done_;
};

// A file system that has room for everything and holds nothing; needs the right to mount, as the
// tests of the disk tier do.
class WideDisk {
 public:
  WideDisk() {
    std::filesystem::create_directories(path());
    is_mounted_ = ::mount("tmpfs", path().c_str(), "tmpfs", 0, "size=1t") == 0;
  }
  ~WideDisk() {
    if (is_mounted_) ::umount2(path().c_str(), MNT_DETACH);
  }
  [[nodiscard]] bool is_mounted() const { return is_mounted_; }
  [[nodiscard]] std::string path() const { return scratch_.path() + "/disk"; }
  [[nodiscard]] std::uint64_t used() const {
    const auto room = std::filesystem::space(path());
    return room.capacity - room.free;
  }

 private:
  Scratch scratch_;
  bool is_mounted_ = false;
};

TEST(StartWorkScenario, AnEmptyCacheStartsInBoundedWorkWhateverItsSize) {
  std::vector<std::uint64_t> writes;
  for (const std::uint64_t blocks : {std::uint64_t{1'000}, std::uint64_t{10'000'000}}) {
    const WideDisk disk;
    ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
    const Scratch scratch;
    Work work;
    Engine engine(
        scratch,
        {.disk_path = disk.path(), .disk_blocks = blocks, .tune = [&](manager::Options& options) {
           options.disk.decorate = [&](auto inner) {
             return std::make_unique<CountingBackend>(std::move(inner), work);
           };
         }});
    ASSERT_TRUE(engine.wait_ready());
    ASSERT_TRUE(engine.wait_on_disk(1));  // The canary's block.
    std::uint64_t slots = 0;
    for (const auto& tier : engine.manager().status().tiers) {
      if (tier.tier == Tier::kDisk) slots = tier.slots[0] + 1;
    }
    EXPECT_EQ(slots, blocks);
    const auto tokens = Engine::make_tokens(4, 1);
    engine.run(tokens);
    EXPECT_EQ(engine.run(tokens).loaded, 4U);
    ASSERT_TRUE(engine.wait_on_disk(5));
    EXPECT_EQ(engine.logged().find("full"), std::string::npos);
    EXPECT_EQ(work.read_bytes, 4096U + 12288U);  // The canary's frame; nothing of slots.meta.
    EXPECT_LE(work.written_bytes, 256U << 10U);
    EXPECT_LE(disk.used(), 512U << 10U);
    writes.push_back(work.writes);
  }
  EXPECT_LE(writes[1], writes[0] + 16);
}

TEST(StartWorkTest, ASharedStoreThatHangsAtTheStartKeepsNoDiskFromOpening) {
  const Scratch scratch;
  std::atomic<bool> is_asked = false;
  std::atomic<bool> may_answer = false;
  Engine engine(scratch,
                {.disk_path = scratch.path() + "/d", .tune = [&](manager::Options& options) {
                   options.object.open_store =
                       [&](const Clock&,
                           LogSink&) -> Result<std::unique_ptr<transfer::ObjectStore>> {
                     is_asked = true;
                     (void)wait_until([&] { return may_answer.load(); });
                     return fail(Code::kUnavailable, "the server is away");
                   };
                 }});
  EXPECT_TRUE(wait_until([&] { return is_asked.load(); }));
  EXPECT_TRUE(engine.wait_on_disk(1)) << "the canary's block";
  may_answer = true;
}

}  // namespace
}  // namespace terrace::scenario
