#include "terrace/config/preset.h"

namespace terrace::config {
namespace {

// A row is here because replays of its purpose show what it gains (docs/results/presets.jsonl, made
// by bench/presets); what gains nothing is left out, and the default holds.
// clang-format off: a row is a line.
constexpr PresetValue kValues[] = {
    // chat: answers and prompts come back as the beginning of the next prompt, and after leaving
    // host they do so nearly alike, so whichever are refused cost hits.
    // agents: nearly all comes back, soon; a filter has the same blocks written again and again.
    {"rag", "disk.admission", "expected",
     "documents come back and questions do not, and what leaves host tells them apart"},
    {"rag", "offload.scope", "prompt",
     "nobody asks on: answers would take the place of documents"},
    {"batch", "disk.admission", "reuse",
     "items come once: only what is seen again is worth a write"},
    {"batch", "offload.scope", "prompt",
     "answers are never a prompt's beginning, so they need not be copied"},
};
// clang-format on

}  // namespace

std::span<const PresetValue> preset_values() { return kValues; }

}  // namespace terrace::config
