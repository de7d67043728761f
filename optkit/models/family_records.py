"""Records of the families whose names or structure the defaults of `Family` do not fit, by `model_type`."""

from optkit.models.family import Family

OWN: dict[str, Family] = {
    "convbert": Family(
        by_head=("conv_out_layer", "key_conv_attn_layer", "key_conv_attn_layer.pointwise"),
        prepare="optkit.models.convbert:hide_padding",
    ),
    "deberta": Family(fused=("in_proj",), fused_by_head=True, by_head=("pos_proj", "pos_q_proj", "q_bias", "v_bias")),
    "funnel": Family(
        refused="it pools its tokens between blocks, so that its layers differ in length; choose another encoder"
    ),
    "layoutlm": Family(refused="it reads the place of each word on a page (bbox), which a table of texts does not have"),
    "longformer": Family(
        refused="its attention slides over chunks of a padded length, which no graph of free length can hold; for long "
        "texts choose ModernBERT"
    ),
    "mobilebert": Family(attention_output=("attention.output.dense",)),
    "mra": Family(
        refused="its attention is computed by a CUDA kernel, and is all zeros where that is not, as in a graph; choose "
        "another encoder"
    ),
    "xlnet": Family(
        refused="its attention multiplies by tensors that are no Linear modules, which could not be quantized or made "
        "sparse; choose another encoder"
    ),
    "xmod": Family(
        refused="it chooses among adapters by each text's language, which a graph of texts cannot do; choose XLM-RoBERTa"
    ),
}
