// ./dev campaign crash: lives of disk caches, cut off at thousands of moments.
#include "campaign/crash_history.h"

int main(int argc, char** argv) {
  return terrace::campaign::run_campaign(
      "crash", argc, argv, [](std::uint64_t seed, terrace::campaign::Figures& figures) {
        using terrace::campaign::CrashHistory;
        // One in three is of short lives that all end in a kill, as what one owner left meets the
        // next ones before it is synced.
        const auto options = seed % 3 == 0 ? CrashHistory::Options{4, 20, 60, true, 100}
                                           : CrashHistory::Options{6, 40, 600, true, 30};
        CrashHistory(options, seed, figures).run();
      });
}
