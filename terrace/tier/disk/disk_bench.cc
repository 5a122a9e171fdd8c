// Sealed writes and verified reads of the disk tier beside fio, alternating, with O_DIRECT, as many
// blocks asked for at once, both with their buffers in huge pages (in scattered 4 KiB pages a
// virtual disk may be half as fast), in the very same file: one whose blocks have all been written
// before, and where a file lies decides how fast some disks are. fio's pieces are whole frames, and
// it syncs as often as the tier syncs frames; the tier's records and their syncs come on top.
//   disk_bench [--directory=DIR] [--runs=N] [--mebibytes=N] [--backend=NAME] [disk.read|disk.write
//   …]
//   disk_bench --serve=PAYLOAD_BYTES …: for bench/peers. Each line of standard input, `write`,
//   `read` or `plain` (read, nothing checked), is done and answered by a line of bytes per second.
//   --cached: through the page cache.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "terrace/tier/disk/disk_flow_rig.h"

namespace terrace::tier::disk {
namespace {

constexpr std::uint64_t kSyncBytes = 32ULL << 20U;  // Of frames, at each of which the tier syncs.

void report(const FlowSetup& setup, bool is_read, const DiskFlow& flow, std::uint64_t payload_bytes,
            const std::vector<std::vector<double>>& samples) {
  testing::BenchResult result;
  result.name = is_read ? "disk.read" : "disk.write";
  result.samples = samples[0];
  result.limit_name = "fio";
  result.limit_samples = samples[1];
  result.param("piece_bytes", static_cast<std::int64_t>(payload_bytes))
      .param("depth", std::int64_t{setup.asked()})
      .param("bytes", static_cast<std::int64_t>(flow.bytes()))
      .param("backend", flow.backend());
  if (!is_read) {
    // Of both; the tier's number of groups in all runs and the warm-up says whether that is so.
    result.param("sync_bytes", static_cast<std::int64_t>(kSyncBytes))
        .param("groups", static_cast<std::int64_t>(flow.metric("terrace_disk_batches_total")));
  }
  testing::print(result, testing::machine_facts(setup.directory));
}

void bench(const FlowSetup& setup, std::uint64_t payload_bytes, const std::string& backend) {
  const ScratchDirectory scratch(setup.directory);
  FlowSetup own = setup;
  own.directory = scratch.path();
  own.backend = backend;
  DiskFlow flow(own, {payload_bytes});
  for (const bool is_read : {true, false}) {  // Reads first: fio's writes leave nothing to verify.
    if (!setup.wants(is_read ? "disk.read" : "disk.write")) continue;
    const Fio::Job job{.file = scratch.path() + "/terrace-00/0.slots",
                       .is_read = is_read,
                       .piece = flow.frame_bytes(),
                       .bytes = flow.count() * flow.frame_bytes(),
                       .depth = own.asked(),
                       .sync_bytes = is_read ? 0 : kSyncBytes,
                       .backend = backend};
    const auto samples =
        testing::alternate(setup.runs, {[&] {
                                          flow.move_memory();
                                          return is_read ? flow.read_all() : flow.write_all();
                                        },
                                        [&] { return Fio(job).bytes_per_second(); }});
    report(own, is_read, flow, payload_bytes, samples);
  }
}

int serve(const FlowSetup& setup) {
  const ScratchDirectory scratch(setup.directory);
  FlowSetup own = setup;
  own.directory = scratch.path();
  if (own.backend.empty()) own.backend = "io_uring";
  DiskFlow flow(own, {setup.served_payload});
  std::cout << "ready" << std::endl;
  for (std::string verb; std::getline(std::cin, verb);) {
    double rate = 0;
    if (verb == "write") rate = flow.write_all();
    if (verb == "read") rate = flow.read_all();
    if (verb == "plain") rate = flow.read_plain(own.device_depth(own.backend));
    if (rate == 0) return 1;
    std::cout << fmt::format("{:.6g}", rate) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace terrace::tier::disk

int main(int argc, char** argv) {
  using namespace terrace::tier::disk;  // NOLINT(google-build-using-namespace)
  const FlowSetup setup = FlowSetup::of(argc, argv);
  if (setup.served_payload > 0) return serve(setup);
  for (const std::string backend : {"io_uring", "threads"}) {
    if (!setup.backend.empty() && setup.backend != backend) continue;
    for (const std::uint64_t payload : {768ULL << 10U, 3ULL << 20U}) {
      bench(setup, payload, backend);
    }
  }
}
