from peft import LoraConfig, inject_adapter_in_model

ranks = {
    r"transformer_blocks\.0\..*": 13,
    r"transformer_blocks\.1\..*": 3,
    r"transformer_blocks\.2\..*": 2,
    r"transformer_blocks\.3\..*": 1,
    r"transformer_blocks\.4\..*": 1,
    r"transformer_blocks\.5\..*": 2,
    r"transformer_blocks\.6\..*": 2,
    r"transformer_blocks\.7\..*": 4,
    r"transformer_blocks\.8\..*": 3,
    r"transformer_blocks\.9\..*": 4,
    r"transformer_blocks\.10\..*": 5,
    r"transformer_blocks\.11\..*": 16,
}
config = LoraConfig(
    r=16,
    lora_alpha=16,
    target_modules=r"transformer_blocks\.\d+\.(?:attn1\.to_q|attn1\.to_k|attn1\.to_v|attn1\.to_out\.0|attn2\.to_q|attn2\.to_k|attn2\.to_v|attn2\.to_out\.0|ff\.net\.0\.proj|ff\.net\.2)",
    rank_pattern=ranks,
    alpha_pattern=ranks,
)
inject_adapter_in_model(config, transformer)
