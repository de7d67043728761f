{{- define "optkit.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "optkit.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "optkit.labels" -}}
{{ include "optkit.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What a new pod of a pool depends on: another version of a model is a rolling update. */}}
{{- define "optkit.digest" -}}
{{- range $path, $content := .root.Files.Glob (printf "files/%s/*" .name) }}{{ $path }}{{ $content | toString }}{{ end }}
{{- .root.Files.Get "files/fetch.sh" }}
{{- end }}
