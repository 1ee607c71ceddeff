//! Embeds the PTX that the build script compiled and lists its entries.

const PTX: [(&str, &str); 2] = [
    ("sm_80", include_str!(env!("USER_KERNELS_SM_80_PTX"))),
    ("sm_90a", include_str!(env!("USER_KERNELS_SM_90A_PTX"))),
];

fn main() {
    for (target, ptx) in PTX {
        let entries: Vec<&str> = ptx
            .lines()
            .filter_map(|line| line.strip_prefix(".visible .entry ")?.strip_suffix('('))
            .collect();
        println!("{target}: {}", entries.join(" "));
    }
}
